"""What a request did, told honestly: tokens, sources, cache results with reasons, milliseconds."""

import html
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from ragpack.text import plural
from ragpack.types import Segment, Span, render

__all__ = ["CacheResult", "PackReport", "PackedContext", "PassageReport", "StageTimer"]

CacheResult = Literal["hit", "miss", "rejected", "unavailable", "uncached", "skipped", "bypassed"]
"""``rejected``: an entry was there and failed a check; ``unavailable``: the store did not answer;
``uncached``: the method stores nothing; ``skipped``: left out before the store was asked;
``bypassed``: compression was switched off."""


class StageTimer:
    """Collects milliseconds per stage; a stage entered twice adds up."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body of a ``with`` statement as stage ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = (time.perf_counter() - start) * 1000.0
            self.ms[name] = self.ms.get(name, 0.0) + elapsed


@dataclass(frozen=True, slots=True)
class PassageReport:
    """What happened to one passage.

    ``tokens_in`` and ``tokens_out`` count the passage on its own, title included, with the
    decoder's tokenizer. ``reason`` says in a few words why a passage was dropped, fell back or
    missed.
    """

    id: str
    kept: tuple[Span, ...]
    tokens_in: int
    tokens_out: int
    cache: CacheResult
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The command line's JSON shape; ``reason`` only where there is one."""
        shape: dict[str, Any] = {
            "id": self.id,
            "kept": [list(span) for span in self.kept],
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "cache": self.cache,
        }
        return shape | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True, slots=True)
class PackReport:
    """The account of one request.

    ``tokens_in`` is the plain context of all passages as given (duplicates included),
    ``tokens_out`` the packed context, both counted whole with the decoder's tokenizer.
    ``fallbacks`` counts, by reason, passages passed on uncompressed because something failed.
    """

    method: str
    tokens_in: int
    tokens_out: int
    passages: tuple[PassageReport, ...] = ()
    ms: dict[str, float] = field(default_factory=dict)
    fallbacks: dict[str, int] = field(default_factory=dict)
    budget: int | None = None

    @property
    def rate(self) -> float:
        """Tokens out over tokens in; lower is stronger, 1.0 for an empty request."""
        return self.tokens_out / self.tokens_in if self.tokens_in else 1.0

    @property
    def hits(self) -> int:
        """Passages whose artifact came from the store."""
        return sum(row.cache == "hit" for row in self.passages)

    @property
    def misses(self) -> int:
        """Passages whose artifact had to be computed although the method stores it."""
        return sum(row.cache in ("miss", "rejected", "unavailable") for row in self.passages)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready summary, without the passages."""
        return {
            "method": self.method,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "rate": round(self.rate, 4),
            "budget": self.budget,
            "hits": self.hits,
            "misses": self.misses,
            "fallbacks": dict(self.fallbacks),
            "ms": {stage: round(value, 3) for stage, value in self.ms.items()},
        }

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        rows = "".join(
            f"<tr><td>{html.escape(row.id)}</td><td>{row.tokens_in}</td><td>{row.tokens_out}</td>"
            f"<td>{row.cache}</td><td>{html.escape(row.reason)}</td></tr>"
            for row in self.passages
        )
        total = sum(self.ms.values())
        return (
            f"<table><caption>{html.escape(self.method)}: {self.tokens_in} → {self.tokens_out} "
            f"tokens, {plural(self.hits, 'hit')}, {plural(self.misses, 'miss', 'misses')}, "
            f"{total:.1f} ms</caption><tr>"
            "<th>passage</th><th>tokens in</th><th>tokens out</th><th>cache</th><th>reason</th>"
            f"</tr>{rows}</table>"
        )


@dataclass(frozen=True, slots=True)
class PackedContext:
    """A context ready for a decoder: segments in passage order, and the account of the request."""

    query: str
    segments: tuple[Segment, ...]
    report: PackReport

    @property
    def text(self) -> str:
        """The context as one string; for soft tokens and KV the text they stand for."""
        return render(self.segments)

    def to_dict(self) -> dict[str, Any]:
        """The JSON shape of ``ragpack pack``."""
        return {
            "query": self.query,
            "context": self.text,
            "passages": [row.to_dict() for row in self.report.passages],
            "report": self.report.to_dict(),
        }
