"""``ragpack pack``: passages in, packed context out."""

import sys

from ragpack import config
from ragpack.cli.console import emit, show_report
from ragpack.cli.options import (
    Budget,
    Index,
    Json,
    K,
    Method,
    MinRelevance,
    Namespace,
    PassageFile,
    Query,
    Settings,
    Sources,
    Store,
    Tokenizer,
    open_packer,
)

__all__ = ["pack"]


def pack(
    query: Query,
    passages: PassageFile = None,
    index: Index = None,
    k: K = 10,
    method: Method = config.DEFAULT_METHOD,
    budget: Budget = None,
    min_relevance: MinRelevance = None,
    store: Store = None,
    namespace: Namespace = None,
    tokenizer: Tokenizer = config.DEFAULT_DECODER,
    settings: Settings = None,
    json: Json = False,
) -> None:
    """Pack passages for a question; the context goes to stdout, the report to stderr."""
    found = Sources(passages, index, k).load(query)
    with open_packer(
        method,
        store=store,
        namespace=namespace,
        budget=budget,
        min_relevance=min_relevance,
        tokenizer=tokenizer,
        settings=settings,
    ) as packer:
        packed = packer.pack(query, found)
    if json:
        emit(packed.to_dict())
        return
    sys.stdout.write(packed.text + "\n")
    show_report(packed.report)
