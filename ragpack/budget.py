"""Spends a token budget over scored spans, exactly.

Tokens do not add up: a rendered context has titles and separators, and a tokenizer may join what
stands side by side. So spans are chosen by an estimate and the *rendered* context is counted; the
least relevant spans leave until it fits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from ragpack.protocols import TokenCounter
from ragpack.types import Passage, Segment, Span, TextArtifact, merge_spans, render

__all__ = ["Draft", "assemble", "fit", "is_empty"]

_SEPARATOR_TOKENS = 1


@dataclass(frozen=True, slots=True)
class Draft:
    """A passage with what a method selected of it; None stands for the whole text, unscored.

    ``rows`` are the soft tokens that stand for it, fitted already; None where its text counts.
    """

    passage: Passage
    choice: TextArtifact | None
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class _Unit:
    """The smallest thing that can be kept or dropped; without a span, the passage's abstract."""

    owner: int
    span: Span | None
    score: float
    tokens: int


def assemble(drafts: Sequence[Draft]) -> list[Segment]:
    """A segment for each draft with everything that was selected, neighbouring spans joined."""
    return [_segment(draft, _spans(draft)) for draft in drafts]


def fit(drafts: Sequence[Draft], budget: int, counter: TokenCounter) -> list[Segment]:
    """Segments, one for each draft in order, whose rendered context has at most ``budget`` tokens.

    Spans are taken by falling score, ties in document order. Where a method gave no scores the
    retriever's decide, and where there is none of those either the passages' own order; what has no
    score among others that have one counts as middling.
    A passage of which nothing fits gives an empty segment (no spans, no abstract). Soft tokens are
    taken off the budget first: the method has chosen them under it.
    """
    text = [draft for draft in drafts if draft.rows is None]
    if len(text) < len(drafts):
        left = budget - sum(draft.rows or 0 for draft in drafts) - len(text) * _SEPARATOR_TOKENS
        fitted = iter(fit(text, left, counter))
        return [next(fitted) if d.rows is None else _segment(d, _spans(d)) for d in drafts]
    segments = assemble(drafts)
    if _tokens(segments, counter) <= budget:
        return segments
    kept = _greedy(drafts, _units(drafts, counter), budget, counter)
    segments = _segments(drafts, kept)
    while kept and _tokens(segments, counter) > budget:
        kept.pop()
        segments = _segments(drafts, kept)
    return segments


def is_empty(segment: Segment) -> bool:
    """Whether nothing of the passage is kept."""
    return not (segment.spans if segment.abstract is None else segment.abstract)


def _tokens(segments: Sequence[Segment], counter: TokenCounter) -> int:
    return counter.count([render([s for s in segments if not is_empty(s)])])[0]


def _spans(draft: Draft) -> tuple[Span, ...]:
    if draft.choice is not None:
        return draft.choice.spans
    if draft.rows == 0:
        return ()
    return ((0, len(draft.passage.text)),) if draft.passage.text else ()


def _segment(draft: Draft, spans: Sequence[Span]) -> Segment:
    abstract = draft.choice.text if draft.choice is not None else None
    return Segment(draft.passage, merge_spans(draft.passage.text, spans), abstract)


def _units(drafts: Sequence[Draft], counter: TokenCounter) -> list[_Unit]:
    """Every unit, best first."""
    neutral = _neutral(drafts)
    units: list[_Unit] = []
    texts: list[str] = []
    for owner, draft in enumerate(drafts):
        spans: Sequence[Span | None] = _spans(draft)
        if draft.choice is not None and draft.choice.text is not None:
            spans, texts = [None], [*texts, draft.choice.text]
        else:
            texts += [draft.passage.text[start:end] for start, end in _spans(draft)]
        scores = draft.choice.scores if draft.choice is not None else ()
        for index, span in enumerate(spans):
            score = scores[index] if index < len(scores) else neutral[owner]
            units.append(_Unit(owner, span, score, 0))
    counts = counter.count(texts)
    units = [replace(unit, tokens=count) for unit, count in zip(units, counts, strict=True)]
    return sorted(units, key=lambda unit: -unit.score)  # stable: ties keep document order


def _neutral(drafts: Sequence[Draft]) -> list[float]:
    """For each draft the score of what the method gave none."""
    known = [score for draft in drafts if draft.choice for score in draft.choice.scores]
    if known:
        return [median(known)] * len(drafts)
    retrieved = [draft.passage.score for draft in drafts]
    middle = median([score for score in retrieved if score is not None] or [0.0])
    return [middle if score is None else score for score in retrieved]


def _greedy(
    drafts: Sequence[Draft], units: Sequence[_Unit], budget: int, counter: TokenCounter
) -> list[_Unit]:
    titles = counter.count([f"{d.passage.title}\n" if d.passage.title else "" for d in drafts])
    spent, opened, kept = 0, set[int](), list[_Unit]()
    for unit in units:
        opening = 0
        if unit.owner not in opened:
            opening = titles[unit.owner] + (_SEPARATOR_TOKENS if opened else 0)
        if spent + unit.tokens + opening <= budget:
            spent += unit.tokens + opening
            opened.add(unit.owner)
            kept.append(unit)
    return kept


def _segments(drafts: Sequence[Draft], kept: Sequence[_Unit]) -> list[Segment]:
    chosen: list[list[Span]] = [[] for _ in drafts]
    abstracts = {unit.owner for unit in kept if unit.span is None}
    for unit in kept:
        if unit.span is not None:
            chosen[unit.owner].append(unit.span)
    return [
        _segment(draft, sorted(spans)) if owner in abstracts or spans else Segment(draft.passage)
        for owner, (draft, spans) in enumerate(zip(drafts, chosen, strict=True))
    ]
