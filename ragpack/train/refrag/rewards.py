"""What a policy learns from: how much nearer the truth a decoder comes with chunks spelled out."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import mse_loss

__all__ = ["advantages", "answer_loss", "drawn", "log_probability", "regression_loss", "single"]

_LEAST_SPREAD = 1e-4
"""Below it, in nats, a group's losses are equal and nothing is to be learned from them."""


def single(chunks: int) -> list[NDArray[np.bool_]]:
    """The masks that spell out no chunk, and then each chunk alone."""
    return [np.zeros(chunks, dtype=bool), *np.eye(chunks, dtype=bool)]


def regression_loss(logits: Tensor, losses: Tensor) -> Tensor:
    """Squared error of the ``logits`` [n] against the chunks' gains, both centred, gains scaled.

    Args:
        logits: the policy's.
        losses: of the reference with no chunk spelled out, and with each one alone [n + 1].
    """
    return mse_loss(logits - logits.mean(), _scaled(losses[0] - losses[1:]))


def answer_loss(logits: Tensor, holds: Tensor) -> Tensor:
    """Minus the logarithm of the chance that a softmax over the ``logits`` [n] gives an answer.

    Args:
        logits: the policy's.
        holds: which chunks hold the answer, or a part of it [n].
    """
    return logits.logsumexp(0) - logits[holds].logsumexp(0)


def drawn(logits: Tensor, count: int) -> list[int]:
    """``count`` chunks drawn one after another by a softmax over those that are left."""
    noise = -torch.empty_like(logits).exponential_().log()  # the Gumbel trick: the same law
    chosen: list[int] = (logits.detach() + noise).topk(count).indices.tolist()
    return chosen


def log_probability(logits: Tensor, chosen: Sequence[int]) -> Tensor:
    """Logarithm of the probability to draw ``chosen`` in this order without replacement."""
    left = torch.ones_like(logits, dtype=torch.bool)
    total = logits.new_zeros(())
    for chunk in chosen:
        total = total + logits[chunk] - logits[left].logsumexp(0)
        left = left.index_fill(0, torch.tensor([chunk], device=logits.device), False)
    return total


def advantages(losses: Tensor) -> Tensor:
    """How much better than its group each set did [g]; the reward is minus the loss."""
    return _scaled(-losses)


def _scaled(values: Tensor) -> Tensor:
    spread = values.std(correction=0)
    if spread < _LEAST_SPREAD:
        return torch.zeros_like(values)
    return (values - values.mean()) / spread
