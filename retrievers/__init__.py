"""Adapters of ragpack: import this folder as ``ragpack.retrievers``."""

if (
    __name__ != "ragpack.retrievers"
):  # a second copy under a bare name would split every class in two
    raise ImportError(
        "import ragpack.retrievers, not retrievers: install the project with 'pip install -e .'"
    )
