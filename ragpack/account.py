"""The account of a request: what became of each passage, in tokens, with the reason."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import NamedTuple

from ragpack.budget import Draft, is_empty
from ragpack.protocols import TokenCounter
from ragpack.reader import Lookup
from ragpack.report import PassageReport
from ragpack.soft.placed import PlacedChunks
from ragpack.types import Artifact, Passage, Segment, TextArtifact, render

__all__ = ["LEFT_OUT", "Outcome", "Tokens", "account"]

LEFT_OUT = TextArtifact()
"""The choice for a passage below the least relevance: nothing, and known by identity."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A passage, where its artifact came from, and what the method chose of it (None: all).

    ``sources`` are the request's passages that it is made of: itself, or for a method that reads
    the whole set as one, all of them.
    """

    passage: Passage
    look: Lookup
    choice: Artifact | None
    sources: tuple[Passage, ...]

    @property
    def draft(self) -> Draft:
        """What the budget sees: spans for text, the whole passage for anything else."""
        if isinstance(self.choice, PlacedChunks):
            return Draft(self.passage, None, self.choice.tokens)
        choice = self.choice if isinstance(self.choice, TextArtifact) else None
        return Draft(self.passage, choice)

    @property
    def fell_back(self) -> bool:
        """Whether the text is passed on because something failed."""
        return self.choice is None and self.look.result != "bypassed"

    def carry(self, segment: Segment) -> Segment:
        """``segment`` with the soft tokens or KV that the method chose."""
        if self.choice is None or isinstance(self.choice, TextArtifact):
            return segment
        return replace(segment, artifact=self.choice)

    def reason(self, segment: Segment) -> str:
        """Why the passage was dropped, fell back or missed; empty for a plain hit."""
        if is_empty(segment):
            return self._dropped()
        return self.look.reason

    def _dropped(self) -> str:
        if not self.passage.text.strip():
            return "empty"
        choice = self.choice
        if choice is LEFT_OUT:
            return "below min_relevance"
        if isinstance(choice, TextArtifact) and not choice.spans and not choice.text:
            return "nothing relevant"
        return "budget"


class Tokens(NamedTuple):
    """Tokens of the whole context, before and after packing."""

    before: int
    after: int


def account(
    passages: Sequence[Passage],
    outcomes: Sequence[Outcome],
    segments: Sequence[Segment],
    counter: TokenCounter,
) -> tuple[tuple[PassageReport, ...], Tokens]:
    """One row for each of ``passages``, in order, and the tokens of the whole context.

    The ``sources`` of ``outcomes`` are the same passages, or those without their twins in any
    order.
    """
    sources = [source for outcome in outcomes for source in outcome.sources]
    texts = ["\n\n".join(passage.full_text for passage in passages)]
    spoken = [segment for segment in segments if not (is_empty(segment) or _rows_of(segment))]
    texts += [render(spoken), *(source.full_text for source in sources)]
    texts += ["" if is_empty(segment) else segment.text for segment in segments]
    before, after, *counts = counter.count(texts)
    tokens_in, soft = iter(counts), [_rows_of(segment) for segment in segments]
    tokens_out = [a or b for a, b in zip(soft, counts[len(sources) :], strict=True)]
    parts = zip(outcomes, segments, tokens_out, strict=True)
    rows = [row for part in parts for row in _rows(*part, tokens_in)]
    if any(one is not other for one, other in zip_longest(sources, passages)):
        rows = _with_twins(passages, sources, rows)
    return tuple(rows), Tokens(before, after + sum(soft))


def _rows_of(segment: Segment) -> int:
    """Soft tokens, and chunks spelled out among them, that stand for a segment's text."""
    artifact = segment.artifact
    return artifact.tokens if isinstance(artifact, PlacedChunks) else 0


def _rows(
    outcome: Outcome, segment: Segment, tokens_out: int, tokens_in: Iterator[int]
) -> Iterator[PassageReport]:
    """A row for each source; what several of them share is counted at the first."""
    reason, result = outcome.reason(segment), outcome.look.result
    for source in outcome.sources:
        yield PassageReport(source.id, segment.spans, next(tokens_in), tokens_out, result, reason)
        tokens_out = 0
        reason = reason or f"together with {outcome.sources[0].id}"


def _with_twins(
    passages: Sequence[Passage], sources: Sequence[Passage], rows: Sequence[PassageReport]
) -> list[PassageReport]:
    """``rows`` with one more for each passage whose text another one already carries."""
    by_digest = {source.digest: row for source, row in zip(sources, rows, strict=True)}
    seen: set[str] = set()
    lines = []
    for passage in passages:
        row = by_digest[passage.digest]
        if passage.digest in seen:
            reason = f"duplicate of {row.id}"
            row = replace(row, id=passage.id, kept=(), tokens_out=0, reason=reason)
        seen.add(passage.digest)
        lines.append(row)
    return lines
