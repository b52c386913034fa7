"""Fits how exit-mini weighs its two signals, on articles that its training never saw."""

import logging
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ragpack.models.sentence_judge import SentenceJudge
from ragpack.train.exit_mini_data import HELD_OUT, Group, Sample, load_squad
from ragpack.train.lexical import LexicalIndex

__all__ = ["fit_fusion"]

logger = logging.getLogger(__name__)

_RIVALS = 5
_DECAY = 1e-3


def fit_fusion(judge: SentenceJudge, data: Path, *, questions: int = 100, seed: int = 7) -> Tensor:
    """Logistic regression on held-out questions, each with its passage and the nearest others.

    Args:
        judge: gives the signals; its own fusion is not used.
        data: the folder of training data.
        questions: how many to fit on.
        seed: of their choice.

    Returns:
        Weight of the log-odds, weight of the cosine, offset: [3].
    """
    groups = [group for group, _ in load_squad(data)]
    index = LexicalIndex(group.samples[0].text for group in groups)
    held = [group for group in groups if group.article in HELD_OUT]
    draw = random.Random(seed)  # noqa: S311 - not for secrets
    chosen = draw.sample(held, min(questions, len(held)))
    rows: list[list[float]] = []
    labels: list[int] = []
    for group in chosen:
        samples = _with_rivals(group, groups, index)
        titles = [sample.title for sample in samples]
        found = judge.signals(group.question, titles, [sample.sentences for sample in samples])
        rows += [[one.log_odds, one.cosine, 1.0] for row in found for one in row]
        labels += [label for sample in samples for label in sample.labels]
    known = [number for number, label in enumerate(labels) if label >= 0]
    return _regression(torch.tensor(rows)[known], torch.tensor(labels)[known].float())


def _with_rivals(group: Group, groups: Sequence[Group], index: LexicalIndex) -> list[Sample]:
    """The group's passage and the nearest different ones."""
    own = group.samples[0]
    near = {groups[row].samples[0].text: groups[row] for row in index.nearest(group.question, 60)}
    others = [other.samples[0] for text, other in near.items() if text != own.text]
    return [own, *(sample.irrelevant() for sample in others[:_RIVALS])]


def _regression(signals: Tensor, labels: Tensor) -> Tensor:
    """Weights [3] of the most likely logistic model of ``labels`` [n] given ``signals`` [n, 3]."""
    weights = torch.zeros(signals.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(signals @ weights, labels)
        loss = loss + _DECAY * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    logger.info("fusion %s", [round(value, 3) for value in weights.tolist()])
    return weights.detach()
