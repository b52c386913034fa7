"""Adapters of ragpack: import this folder as ``ragpack.compressors``."""

if (
    __name__ != "ragpack.compressors"
):  # a second copy under a bare name would split every class in two
    raise ImportError(
        "import ragpack.compressors, not compressors: install the project with 'pip install -e .'"
    )
