"""Sensing: which chunks a request would rather read in full. Every policy is a small plug-in.

A policy gives each chunk a score; :func:`ragpack.soft.spend.best` spells out the highest. To add
one, write a class with the three members of :class:`Policy` and put it into :data:`POLICIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ragpack.errors import ConfigError

__all__ = ["POLICIES", "ByLoss", "Everything", "LossKind", "Nothing", "Policy", "QueryCosine"]
__all__ += ["Random", "Scene", "policy_named"]

LossKind = Literal["none", "perplexity", "reconstruction"]
"""What is stored beside each chunk: how badly the decoder expects it behind its passage's beginning
(mean nats a token), how badly it tells it from its soft token, or nothing."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The chunks of one request, all passages together.

    Shapes: ``vectors`` [n, d]; ``query`` [d], or None for a policy that does not read it;
    ``losses`` [n], or None where none are stored.
    """

    vectors: NDArray[np.float32]
    query: NDArray[np.float32] | None = None
    losses: NDArray[np.float32] | None = None


class Policy(Protocol):
    """Scores chunks; the higher, the sooner spelled out, minus infinity never."""

    losses: LossKind
    reads_query: bool

    def scores(self, scene: Scene) -> NDArray[np.float32]:
        """One score for each chunk [n]."""
        ...


class Nothing:
    """Every chunk stays a soft token."""

    losses: LossKind = "none"
    reads_query = False

    def scores(self, scene: Scene) -> NDArray[np.float32]:
        """Minus infinity everywhere."""
        return np.full(len(scene.vectors), -np.inf, dtype=np.float32)


class Everything:
    """Every chunk is spelled out, the first ones first: the plain prompt, if all may be."""

    losses: LossKind = "none"
    reads_query = False

    def scores(self, scene: Scene) -> NDArray[np.float32]:
        """The same for all."""
        return np.zeros(len(scene.vectors), dtype=np.float32)


class Random:
    """By chance, the same for the same number of chunks; the baseline of every policy."""

    losses: LossKind = "none"
    reads_query = False

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def scores(self, scene: Scene) -> NDArray[np.float32]:
        """Uniform numbers."""
        return np.random.default_rng(self.seed).random(len(scene.vectors), dtype=np.float32)


class QueryCosine:
    """The chunks nearest to the query in the encoder's space."""

    losses: LossKind = "none"
    reads_query = True

    def scores(self, scene: Scene) -> NDArray[np.float32]:
        """Cosines; 0 for a chunk without direction."""
        if scene.query is None:
            raise ValueError("a policy that reads the query was given none")
        lengths = np.linalg.norm(scene.vectors, axis=1) * np.linalg.norm(scene.query)
        products = (scene.vectors * scene.query).sum(axis=1)
        found: NDArray[np.float32] = products / np.maximum(lengths, np.finfo(np.float32).tiny)
        return found


class ByLoss:
    """By what is stored beside the chunks: the largest loss first, or the smallest."""

    reads_query = False

    def __init__(self, losses: LossKind, *, largest_first: bool) -> None:
        self.losses = losses
        self._sign = 1 if largest_first else -1

    def scores(self, scene: Scene) -> NDArray[np.float32]:
        """The losses, or their negatives."""
        if scene.losses is None:
            raise ValueError("a policy that reads losses was given none")
        return self._sign * scene.losses


POLICIES: dict[str, Callable[[int], Policy]] = {
    "none": lambda seed: Nothing(),
    "all": lambda seed: Everything(),
    "random": Random,
    "query-cosine": lambda seed: QueryCosine(),
    "ppl-desc": lambda seed: ByLoss("perplexity", largest_first=True),
    "ppl-asc": lambda seed: ByLoss("perplexity", largest_first=False),
    "reconstruction-loss": lambda seed: ByLoss("reconstruction", largest_first=True),
}
"""Policies by name, each made from the seed; ``learned`` comes with a projector's checkpoint."""


def policy_named(name: str, seed: int = 0) -> Policy:
    """The policy called ``name``.

    Raises:
        ConfigError: no such policy.
    """
    if name not in POLICIES:
        known = ", ".join([*POLICIES, "learned"])
        raise ConfigError(f"sense must be one of {known}, not {name!r}")
    return POLICIES[name](seed)
