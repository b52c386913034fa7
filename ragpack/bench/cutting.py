"""Cuts ranked spans at a share of the words, so that methods are compared at equal length."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from ragpack.types import Passage, Segment, Span, TextArtifact, merge_spans

__all__ = ["cut", "words_kept"]

_WORD_START = re.compile(r"(?<!\S)\S")


class _Unit(NamedTuple):
    owner: int
    span: Span
    score: float
    words: int


def words_kept(segments: Sequence[Segment]) -> tuple[int, int]:
    """Words that begin in what is kept of the passages, and words of the passages."""
    starts = [_word_starts(segment.passage.text) for segment in segments]
    pairs = zip(starts, segments, strict=True)
    kept = sum(_between(own, span) for own, segment in pairs for span in segment.spans)
    return kept, sum(map(len, starts))


def cut(passages: Sequence[Passage], ranked: Sequence[TextArtifact], share: float) -> list[Segment]:
    """A segment for each passage: the best spans that make up ``share`` of all words.

    The last span that is taken has at least its middle below the limit, so that over many
    questions the share is met on average. Spans without scores are taken in order.
    """
    starts = [_word_starts(passage.text) for passage in passages]
    units = sorted(_units(starts, ranked), key=lambda unit: -unit.score)
    limit = share * sum(map(len, starts))
    ends = accumulate(unit.words for unit in units)
    kept: list[list[Span]] = [[] for _ in passages]
    for unit, end in zip(units, ends, strict=True):
        if end - unit.words / 2 <= limit:
            kept[unit.owner].append(unit.span)
    return [
        Segment(passage, merge_spans(passage.text, sorted(spans)))
        for passage, spans in zip(passages, kept, strict=True)
    ]


def _units(starts: Sequence[Sequence[int]], ranked: Sequence[TextArtifact]) -> list[_Unit]:
    return [
        _Unit(owner, span, score, _between(begins, span))
        for owner, (begins, own) in enumerate(zip(starts, ranked, strict=True))
        for span, score in zip(own.spans, own.scores or (0.0,) * len(own.spans), strict=True)
    ]


def _word_starts(text: str) -> list[int]:
    return [match.start() for match in _WORD_START.finditer(text)]


def _between(starts: Sequence[int], span: Span) -> int:
    return bisect_left(starts, span[1]) - bisect_left(starts, span[0])
