"""What soft tokens are worth on articles that training never saw."""

import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ragpack.soft.reader import Reading
from ragpack.train.refrag.data import questions
from ragpack.train.refrag.samples import Sample, Sampler
from ragpack.train.refrag.setup import Setup

__all__ = ["recovered"]

_QUESTIONS = 24


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
