"""Adapters of ragpack: import this folder as ``ragpack.cache_store``."""

if (
    __name__ != "ragpack.cache_store"
):  # a second copy under a bare name would split every class in two
    raise ImportError(
        "import ragpack.cache_store, not cache_store: install the project with 'pip install -e .'"
    )
