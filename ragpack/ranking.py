"""Ranks the sentences of one request's passages against each other.

A compressor judges a sentence by the query and its own passage. What only the whole request shows
is added here, without a model, as raises in units of the range of the scores given:

- words: BM25 of title and sentence over the request's sentences;
- passage: a sentence is raised with the best sentence of its passage, the first one twice, because
  it usually names what the passage is about;
- links: a question of several hops names its second passage nowhere, but a relevant sentence of
  the first one does. A passage whose title stands in a sentence elsewhere is raised with it.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple, Self

from ragpack.types import Passage, Span

__all__ = ["ranked", "relevance"]

_WORDS, _PASSAGE, _FIRST, _LINK = 0.3, 0.3, 0.3, 0.5
"""Set by hand. Halving or doubling any one moves answer retention by at most three points."""

_K1, _B = 1.2, 0.75
_WORD = re.compile(r"\w+")
_SUFFIX = re.compile(r"\s*\([^)]*\)\s*$")
_SHORTEST_TITLE = 3


def ranked(
    query: str,
    passages: Sequence[Passage],
    spans: Sequence[Sequence[Span]],
    scores: Sequence[Sequence[float]],
) -> list[list[float]]:
    """The scores after all raises, in the shape of ``scores``.

    Args:
        query: the question.
        passages: the request's passages.
        spans: the sentences of each passage.
        scores: a score for each sentence, higher is more relevant.
    """
    flat = [score for row in scores for score in row]
    if not flat:
        return [[] for _ in scores]
    low, width = min(flat), max(flat) - min(flat)
    texts = _texts(passages, spans)
    base = [
        [(score - low) / (width or 1.0) + _WORDS * match for score, match in pairs]
        for pairs in map(zip, scores, _matches(query, passages, texts))
    ]
    links = _links(passages, texts, base, otherwise=0.0)
    return [
        [low + width * value for value in _raised(row, link)]
        for row, link in zip(base, links, strict=True)
    ]


def relevance(
    passages: Sequence[Passage],
    spans: Sequence[Sequence[Span]],
    scores: Sequence[Sequence[float]],
) -> list[float]:
    """How relevant each passage is, on the scale of ``scores``; arguments as in :func:`ranked`.

    It is the score of its best sentence, or of the best one elsewhere that mentions its title,
    since a second hop need not resemble the query; -inf where there is neither.
    """
    links = _links(passages, _texts(passages, spans), scores, otherwise=-math.inf)
    return [max([*row, link]) for row, link in zip(scores, links, strict=True)]


def _texts(passages: Sequence[Passage], spans: Sequence[Sequence[Span]]) -> list[list[str]]:
    """The sentences of each passage, in small letters."""
    pairs = zip(passages, spans, strict=True)
    return [[passage.text[start:end].lower() for start, end in own] for passage, own in pairs]


def _raised(row: Sequence[float], link: float) -> Iterator[float]:
    best = max(row, default=0.0)
    for place, value in enumerate(row):
        first = _FIRST * best if place == 0 else 0.0
        yield value + _PASSAGE * best + first + _LINK * link


def _links(
    passages: Sequence[Passage],
    texts: Sequence[Sequence[str]],
    values: Sequence[Sequence[float]],
    otherwise: float,
) -> list[float]:
    """For each passage the best value of a sentence elsewhere that mentions its title."""
    sentences = [
        (other, text, value)
        for other, (row, found) in enumerate(zip(texts, values, strict=True))
        for text, value in zip(row, found, strict=True)
    ]
    everything = "\n".join(text for _, text, _ in sentences)  # most names stand nowhere in it
    names = [_SUFFIX.sub("", passage.title).strip().lower() for passage in passages]
    return [
        max(
            (
                value
                for other, text, value in sentences
                if other != own and name in text and _whole(name).search(text)
            ),
            default=otherwise,
        )
        if len(name) >= _SHORTEST_TITLE and name in everything
        else otherwise
        for own, name in enumerate(names)
    ]


@lru_cache(maxsize=4096)
def _whole(name: str) -> re.Pattern[str]:
    """Finds ``name`` between other letters; scripts without spaces have no such borders."""
    return re.compile(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])")


def _matches(
    query: str, passages: Sequence[Passage], texts: Sequence[Sequence[str]]
) -> list[list[float]]:
    """BM25 (Robertson and Zaragoza, 2009) of title and sentence, over the best one's; in [0, 1]."""
    asked = frozenset(_WORD.findall(query.lower()))
    heads = [_WORD.findall(passage.title.lower()) for passage in passages]
    counts = [
        [_Count.of(head + _WORD.findall(text), asked) for text in row]
        for row, head in zip(texts, heads, strict=True)
    ]
    every = [count for row in counts for count in row]
    mean = sum(count.length for count in every) / len(every) or 1.0
    held = Counter(chain.from_iterable(count.asked for count in every))
    idf = {
        word: math.log(1 + (len(every) - found + 0.5) / (found + 0.5))
        for word, found in held.items()
    }
    values = [[_match(count, idf, mean) for count in row] for row in counts]
    best = max(chain.from_iterable(values), default=0.0) or 1.0
    return [[value / best for value in row] for row in values]


class _Count(NamedTuple):
    """A sentence's number of words, and how often each word of the query is among them."""

    length: int
    asked: dict[str, int]

    @classmethod
    def of(cls, words: Sequence[str], asked: frozenset[str]) -> Self:
        return cls(len(words), {word: words.count(word) for word in asked.intersection(words)})


def _match(count: _Count, idf: Mapping[str, float], mean: float) -> float:
    if not count.asked:
        return 0.0
    norm = _K1 * (1 - _B + _B * count.length / mean)
    return math.fsum(
        idf[word] * times * (_K1 + 1) / (times + norm) for word, times in count.asked.items()
    )
