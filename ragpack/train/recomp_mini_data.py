"""Training triples for recomp-mini: a question, the sentence that answers it, two that do not.

From the groups of exit-mini (:mod:`ragpack.train.exit_mini_data`): the same public data sets, the
same held-out articles.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragpack.train.exit_mini_data import Group, Sample, training_groups

__all__ = ["Triple", "headed", "load_triples"]


@dataclass(frozen=True, slots=True)
class Triple:
    """A question with texts as recomp-mini encodes them: a title and one sentence.

    ``beside`` stands in the answer's own passage, ``near`` in one that is near the question by
    BM25 and holds no answer.
    """

    question: str
    positive: str
    beside: str
    near: str


def headed(title: str, sentence: str) -> str:
    """The sentence under its passage's title, as ``recomp-extractive`` encodes it."""
    return f"{title} {sentence}" if title else sentence


def load_triples(folder: Path, seed: int, excluded: frozenset[str]) -> list[Triple]:
    """The triples of one epoch, shuffled; negatives are drawn anew for every seed.

    Args:
        folder: see :func:`ragpack.train.exit_mini_data.load_groups`.
        seed: of the shuffling and of the draws.
        excluded: see :func:`ragpack.train.exit_mini_data.excluded_texts`.
    """
    draw = random.Random(seed)  # noqa: S311 - not for secrets
    return list(_triples(training_groups(folder, seed, excluded), draw))


def _triples(groups: Sequence[Group], draw: random.Random) -> Iterator[Triple]:
    """Groups without an answer, or with nothing beside it, make no triple."""
    for group in groups:
        own, *misses = group.samples
        positives, beside = _texts(own, 1), _texts(own, 0)
        near = [text for miss in misses for text in _texts(miss, 0)]
        if positives and beside and near:
            yield Triple(group.question, positives[0], draw.choice(beside), draw.choice(near))


def _texts(sample: Sample, label: int) -> list[str]:
    pairs = zip(sample.sentences, sample.labels, strict=True)
    return [headed(sample.title, sentence) for sentence, mark in pairs if mark == label]
