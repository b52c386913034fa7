"""What `refrag_quality.py` has measured: loss and rows of every arm, sample by sample."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import Kept, interval
from numpy.typing import NDArray

__all__ = ["Figures", "Measured", "plot"]

_RESAMPLES = 2000
_POLICIES = "query-cosine", "learned", "random", "oracle"
_KINDS = {"soft tokens": "o", **dict.fromkeys(_POLICIES, "D"), "cut": "s", "recomp": "^"}

Key = tuple[int, int]
"""Seed and number of a sample."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One arm on one sample of a task: mean loss of the truth's tokens, and rows of context."""

    task: str
    seed: int
    number: int
    arm: str
    loss: float
    rows: int


class Figures:
    """Every figure so far.

    Args:
        kept: where they are kept.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._by: dict[str, dict[str, dict[Key, Measured]]] = {}
        for record in kept.found:
            self._take(Measured(**record))

    def has(self, task: str, seed: int, number: int, arm: str) -> bool:
        """Whether an arm is measured on a sample already."""
        return (seed, number) in self._by.get(task, {}).get(arm, {})

    def add(self, measured: Measured) -> None:
        """Keep a figure."""
        self._take(measured)
        self._kept.add(asdict(measured))

    def _take(self, measured: Measured) -> None:
        arms = self._by.setdefault(measured.task, {})
        arms.setdefault(measured.arm, {})[measured.seed, measured.number] = measured

    @property
    def tasks(self) -> list[str]:
        """Tasks that something is measured on."""
        return list(self._by)

    def table(self, task: str) -> dict[str, dict[str, Any]]:
        """Means of every arm over its samples, seeds pooled, and its differences to its rivals.

        An arm is compared on the samples that both have. Intervals are of 95 %, by a bootstrap over
        samples that picks the same ones for both; a difference below 0 is better.
        """
        arms = self._by[task]
        return {arm: self._row(arms, arm) for arm in arms}

    def _row(self, arms: dict[str, dict[Key, Measured]], arm: str) -> dict[str, Any]:
        own = arms[arm]
        row: dict[str, Any] = {
            "n": len(own),
            "rows": round(float(np.mean([one.rows for one in own.values()])), 1),
            "nll": round(float(np.mean([one.loss for one in own.values()])), 4),
            "nll_by_seed": _by_seed(own),
        }
        none, full, found = _paired(arms, "none", "full", arm)
        picks = _picks(len(found))
        row["recovered"] = round(float(_recovered(none, full, found)), 4)
        row["recovered_95"] = interval(_recovered(none[picks], full[picks], found[picks]))
        for name, other in _rivals(arm, arms).items():
            ours, theirs = _paired(arms, arm, other)
            gaps = ours - theirs
            drawn = gaps[_picks(len(gaps))].mean(axis=-1)
            row[f"against {name}"] = [round(float(gaps.mean()), 4), *interval(drawn)]
        return row


def plot(tasks: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    """Rows against loss, one panel a task; the arms of one kind are joined."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(tasks), 5), layout="constrained")
    for number, (task, arms) in enumerate(tasks.items(), 1):
        axes = figure.add_subplot(1, len(tasks), number, title=task)
        axes.set(xlabel="rows of context", ylabel="loss, nats a token")
        axes.axhline(arms["none"]["nll"], color="grey", linestyle=":", label="no context")
        axes.axhline(arms["full"]["nll"], color="black", linestyle=":", label="full context")
        for kind, marker in _KINDS.items():
            own = [(row["rows"], row["nll"]) for arm, row in arms.items() if _kind(arm) == kind]
            if own:
                axes.plot(*zip(*sorted(own), strict=True), marker=marker, linewidth=1, label=kind)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def _kind(arm: str) -> str:
    if ": " in arm:
        return arm.rpartition(": ")[2]
    return arm.rpartition(" ")[2] if " " in arm else "soft tokens" if "=" in arm else arm


def _rivals(arm: str, arms: dict[str, Any]) -> dict[str, str]:
    """Arms to compare with: text of as many rows, and other policies at the same share."""
    found = {name: f"{arm}: {name}" for name in ("cut", "recomp", "others")}
    if " " in arm:
        found |= {name: f"{arm.rpartition(' ')[0]} {name}" for name in ("random", "query-cosine")}
    return {name: other for name, other in found.items() if other in arms and other != arm}


def _paired(arms: dict[str, dict[Key, Measured]], *names: str) -> list[NDArray[np.float64]]:
    """Losses of each arm on the samples that all of them have, in one order."""
    shared = sorted(set.intersection(*(set(arms[name]) for name in names)))
    return [np.array([arms[name][key].loss for key in shared]) for name in names]


def _by_seed(own: dict[Key, Measured]) -> dict[int, float]:
    """The mean loss of every seed's samples."""
    seeds = sorted({seed for seed, _ in own})
    parts = {seed: [one.loss for key, one in own.items() if key[0] == seed] for seed in seeds}
    return {seed: round(float(np.mean(losses)), 4) for seed, losses in parts.items()}


def _picks(count: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(count, size=(_RESAMPLES, count))


def _recovered(none: Any, full: Any, found: Any) -> Any:
    """How much of the context's worth is kept, over samples [..., samples]."""
    return (none.mean(-1) - found.mean(-1)) / (none.mean(-1) - full.mean(-1))
