"""What soft tokens and a policy are worth on articles that training never saw."""

import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ragpack.soft.learned import Learned
from ragpack.soft.reader import Reading
from ragpack.soft.sense import Policy, QueryCosine, Random, Scene
from ragpack.soft.spend import best
from ragpack.train.refrag.data import questions
from ragpack.train.refrag.samples import Sample, Sampler
from ragpack.train.refrag.scenes import Scenes
from ragpack.train.refrag.setup import Setup

__all__ = ["found", "recovered"]

_QUESTIONS = 24
_SCENES, _SHARE = 100, 0.25
"""Questions that a policy is tried on, and the share of the chunks that it picks."""


def recovered(data: Path, setup: Setup, sampler: Sampler) -> dict[str, float]:
    """Mean loss of gold answers in nats a token, by what the decoder reads of the passage.

    ``full`` is all of it, ``none`` nothing, ``soft`` one soft token a chunk, ``cut`` its first
    tokens, as many as there are soft tokens.
    """
    held_out = list(questions(data, held_out=True))
    draw = random.Random(0)  # noqa: S311 - not for secrets
    k = setup.checkpoint.config.chunk
    some = draw.sample(held_out, min(_QUESTIONS, len(held_out)))
    rows = [_losses(setup, sampler.answered(asked, k, draw)) for asked in some]
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


@torch.inference_mode()
def found(data: Path, setup: Setup) -> dict[str, float]:
    """Share of the chunks with the answer among the quarter that a policy spells out first."""
    scenes = Scenes(list(questions(data, held_out=True)), setup)
    draw = random.Random(0)  # noqa: S311 - not for secrets
    policies: list[Policy] = [Learned(setup.checkpoint.policy.cpu()), QueryCosine(), Random()]
    shares: dict[str, list[float]] = {"learned": [], "query-cosine": [], "random": []}
    for _ in range(_SCENES):
        drawn = scenes.draw(draw)
        holds = drawn.holds.cpu().numpy()
        scene = Scene(drawn.vectors.cpu().numpy(), drawn.query.cpu().numpy())
        for own, policy in zip(shares.values(), policies, strict=True):
            chosen = best(policy.scores(scene), np.ones(len(holds), dtype=np.int64), _SHARE)
            own.append(float(chosen[holds].mean()))
    return {name: statistics.fmean(own) for name, own in shares.items()}


@torch.inference_mode()
def _losses(setup: Setup, sample: Sample) -> dict[str, float]:
    chunks = len(sample.chunks.texts)
    soft = setup.checkpoint.projector(setup.vectors([sample]))
    full = sample.reading(np.ones(chunks, dtype=bool))
    return {
        "none": _loss(setup, Reading((), sample.between, sample.target)),
        "full": _loss(setup, full),
        "soft": _loss(setup, sample.reading(np.zeros(chunks, dtype=bool)), [soft]),
        "cut": _loss(setup, Reading(full.context[:chunks], sample.between, sample.target)),
    }


def _loss(setup: Setup, reading: Reading, rows: Sequence[Tensor] | None = None) -> float:
    logits = setup.reader.logits([reading], rows)
    return float(cross_entropy(logits, torch.tensor(list(reading.target), device=logits.device)))
