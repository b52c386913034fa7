"""Options that several commands share, and what is built from them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ragpack import config, registry
from ragpack.corpus import read_passages
from ragpack.errors import ConfigError
from ragpack.pipeline import ContextPacker
from ragpack.protocols import Retriever
from ragpack.types import Passage

__all__ = [
    "Budget",
    "Index",
    "Json",
    "K",
    "Method",
    "MinRelevance",
    "Namespace",
    "PassageFile",
    "Query",
    "Settings",
    "Sources",
    "Store",
    "Tokenizer",
    "open_index",
    "open_packer",
    "parse_settings",
]

Query = Annotated[str, typer.Option("--query", "-q", help="The question.")]
PassageFile = Annotated[
    Path | None, typer.Option("--passages", help="JSON Lines file of passages, best first.")
]
Index = Annotated[Path | None, typer.Option("--index", help="Folder made by 'ragpack index'.")]
K = Annotated[int, typer.Option("-k", min=1, help="Passages to retrieve.")]
Method = Annotated[str, typer.Option("--method", "-m", help="Compression method.")]
Budget = Annotated[int | None, typer.Option("--budget", help="Most tokens of the context.")]
MinRelevance = Annotated[
    float | None,
    typer.Option("--min-relevance", help="Passages that score below it give nothing."),
]
Store = Annotated[str | None, typer.Option("--store", help="Store URL; embedded by default.")]
Namespace = Annotated[str | None, typer.Option("--namespace", help="Tenant wall in the store.")]
Tokenizer = Annotated[str, typer.Option("--tokenizer", help="Decoder whose tokenizer counts.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Setting of the method, NAME=VALUE.")
]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where passages come from: a file, or the ``k`` nearest of an index."""

    passages: Path | None
    index: Path | None
    k: int

    def load(self, query: str) -> list[Passage]:
        """The passages for ``query``.

        Raises:
            ConfigError: neither or both sources are given.
        """
        if (self.passages is None) == (self.index is None):
            raise ConfigError("give either --passages FILE or --index DIR")
        if self.passages is not None:
            return read_passages(self.passages)
        return open_index(Path(self.index or "")).search(query, self.k)


def open_index(folder: Path) -> Retriever:
    """The index in ``folder``, with the encoder that made it."""
    index: Retriever = registry.load("retrievers", "faiss").load(folder)
    return index


def open_packer(
    method: str,
    *,
    store: str | None,
    namespace: str | None,
    budget: int | None = None,
    min_relevance: float | None = None,
    tokenizer: str = config.DEFAULT_DECODER,
    settings: list[str] | None = None,
) -> ContextPacker:
    """A packer from command-line options."""
    return ContextPacker(
        method,
        store=store,
        namespace=namespace,
        budget=budget,
        min_relevance=min_relevance,
        tokenizer=tokenizer,
        **parse_settings(settings or []),
    )


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """What ``--set NAME=VALUE`` options say; a value is JSON, or else the text it is.

    Raises:
        ConfigError: one has no "=".
    """
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator:
            raise ConfigError(f"--set takes NAME=VALUE, not {setting!r}")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = value
    return parsed
