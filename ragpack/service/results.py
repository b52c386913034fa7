"""A packed context in the shapes of the service."""

from collections.abc import Sequence

from ragpack.protocols import TokenCounter
from ragpack.report import PackedContext, PackReport
from ragpack.service.choice import Weighing
from ragpack.service.schemas import PassageResult, Report, Unit
from ragpack.types import Passage

__all__ = ["report_of", "results_of"]


def report_of(report: PackReport) -> Report:
    """The account of the request."""
    return Report.model_validate(report.to_dict())


def results_of(
    packed: PackedContext,
    passages: Sequence[Passage],
    weighing: Weighing | None,
    counter: TokenCounter,
) -> list[PassageResult]:
    """A row for each passage, in order; with ``weighing`` also every piece with its score."""
    summary = next((s.abstract for s in packed.segments if s.abstract is not None), None)
    rows = []
    for index, (passage, row) in enumerate(zip(passages, packed.report.passages, strict=True)):
        text = " ".join(passage.text[start:end] for start, end in row.kept)
        if summary is not None and row.tokens_out:
            text = summary
        rows.append(
            PassageResult(
                index=index,
                text=text,
                title_tokens=counter.count([_heading(passage)])[0] if weighing else None,
                units=_units(passage, weighing, counter) if weighing else None,
                **row.to_dict(),
            )
        )
    return rows


def _heading(passage: Passage) -> str:
    return f"{passage.title}\n" if passage.title else ""


def _units(passage: Passage, weighing: Weighing, counter: TokenCounter) -> list[Unit]:
    pieces = weighing.pieces(passage)
    tokens = counter.count([passage.text[start:end] for start, end in pieces.spans])
    scores: Sequence[float | None] = pieces.scores or [None] * len(pieces.spans)
    return [
        Unit(start=start, end=end, score=score, tokens=count)
        for (start, end), score, count in zip(pieces.spans, scores, tokens, strict=True)
    ]
