"""A packed context in the shapes of the service."""

from collections.abc import Sequence
from typing import Any

from ragpack.pipeline import ContextPacker
from ragpack.protocols import TokenCounter
from ragpack.report import PackedContext, PackReport
from ragpack.service.choice import Weighing
from ragpack.service.schemas import PassageResult, Report, Unit
from ragpack.types import Passage

__all__ = ["facts_of", "report_of", "results_of"]


def facts_of(report: PackReport) -> dict[str, Any]:
    """What the log says of a request: numbers and names."""
    names = ("method", "tokens_in", "tokens_out", "hits", "misses", "fallbacks")
    return {"passages": len(report.passages)} | {name: getattr(report, name) for name in names}


def report_of(report: PackReport) -> Report:
    """The account of the request."""
    return Report.model_validate(report.to_dict())


def results_of(
    packed: PackedContext, passages: Sequence[Passage], packer: ContextPacker
) -> list[PassageResult]:
    """A row for each passage, in order; with a weighing packer also every piece with its score."""
    weighing = packer.compressor if isinstance(packer.compressor, Weighing) else None
    summary = next((s.abstract for s in packed.segments if s.abstract is not None), None)
    rows = []
    for index, (passage, row) in enumerate(zip(passages, packed.report.passages, strict=True)):
        text = " ".join(passage.text[start:end] for start, end in row.kept)
        if summary is not None and row.tokens_out:
            text = summary
        title_tokens, units = _weighed(passage, weighing, packer.counter)
        rows.append(
            PassageResult(
                index=index,
                id=row.id,
                text=text,
                kept=list(row.kept),
                tokens_in=row.tokens_in,
                tokens_out=row.tokens_out,
                cache=row.cache,
                reason=row.reason,
                title_tokens=title_tokens,
                units=units,
            )
        )
    return rows


def _weighed(
    passage: Passage, weighing: Weighing | None, counter: TokenCounter
) -> tuple[int | None, list[Unit] | None]:
    """Tokens of the heading, and every piece; nothing without a weighing packer."""
    if weighing is None:
        return None, None
    pieces = weighing.pieces(passage)
    heading = f"{passage.title}\n" if passage.title else ""
    title, *tokens = counter.count([heading, *(passage.text[slice(*s)] for s in pieces.spans)])
    scores: Sequence[float | None] = pieces.scores or [None] * len(pieces.spans)
    units = [
        Unit(start=start, end=end, score=score, tokens=count)
        for (start, end), score, count in zip(pieces.spans, scores, tokens, strict=True)
    ]
    return title, units
