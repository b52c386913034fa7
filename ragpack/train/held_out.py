"""How well sentences are told apart on articles that training never saw."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from ragpack.train.exit_mini_data import HELD_OUT, Group, load_groups

__all__ = ["Scores", "accuracy", "held_out_groups"]

Scores = Callable[[str, Sequence[str], Sequence[Sequence[str]]], Sequence[Sequence[float]]]
"""Scores for a question, the titles of passages and their sentences, in the sentences' shape."""

_QUESTIONS = 200


def held_out_groups(data: Path) -> list[Group]:
    """The same questions for every training, each with its passage and a near miss."""
    groups = [
        group
        for group in load_groups(data, seed=0)
        if group.article in HELD_OUT and 1 in group.samples[0].labels
    ]
    draw = random.Random(0)  # noqa: S311 - not for secrets
    return draw.sample(groups, min(_QUESTIONS, len(groups)))


def accuracy(groups: Sequence[Group], scores: Scores) -> float:
    """Share of the questions whose answering sentence scores highest."""
    return sum(_right(group, scores) for group in groups) / max(1, len(groups))


def _right(group: Group, scores: Scores) -> bool:
    samples = group.samples
    rows = scores(
        group.question,
        [sample.title for sample in samples],
        [sample.sentences for sample in samples],
    )
    marks = [label for sample in samples for label in sample.labels]
    flat = [score for row in rows for score in row]
    return marks[max(range(len(flat)), key=flat.__getitem__)] == 1
