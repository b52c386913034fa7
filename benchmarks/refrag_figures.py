"""What `refrag_quality.py` has measured: losses and rows of every arm, sample by sample."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import Kept, interval
from numpy.typing import NDArray

__all__ = ["Figures", "Measured", "plot"]

_RESAMPLES = 2000
_KINDS = {"soft": "o", "cut": "s", "recomp": "^", "full": "*", "none": "x"}


@dataclass(frozen=True, slots=True)
class Measured:
    """One sample of a task: mean loss of the truth's tokens, and rows of context, by arm."""

    task: str
    number: int
    losses: dict[str, float]
    rows: dict[str, int]


class Figures:
    """Every sample so far.

    Args:
        kept: where they are kept.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._by: dict[tuple[str, int], Measured] = {}
        for record in kept.found:
            self._take(Measured(**record))

    def has(self, task: str, number: int) -> bool:
        """Whether a sample is measured already."""
        return (task, number) in self._by

    def add(self, measured: Measured) -> None:
        """Keep a sample."""
        self._take(measured)
        self._kept.add(asdict(measured))

    def _take(self, measured: Measured) -> None:
        self._by[measured.task, measured.number] = measured

    def table(self, task: str, seed: int) -> dict[str, dict[str, Any]]:
        """Means of every arm, and its differences to text of as many rows and to chance.

        Intervals are of 95 %, by a bootstrap over samples that picks the same ones for all arms;
        a difference below 0 is better.
        """
        samples = [one for one in self._by.values() if one.task == task]
        losses = {arm: np.array([one.losses[arm] for one in samples]) for arm in samples[0].losses}
        picks = np.random.default_rng(seed).integers(len(samples), size=(_RESAMPLES, len(samples)))
        table: dict[str, dict[str, Any]] = {}
        for arm, own in losses.items():
            table[arm] = {
                "n": len(samples),
                "rows": round(float(np.mean([one.rows[arm] for one in samples])), 1),
                "nll": round(float(own.mean()), 4),
                "recovered": round(float(_recovered(losses, own, slice(None))), 4),
                "recovered_95": interval(_recovered(losses, own, picks)),
            }
            for name, other in _rivals(arm, losses).items():
                gaps = own - losses[other]
                table[arm][f"against {name}"] = [
                    round(float(gaps.mean()), 4),
                    *interval(gaps[picks].mean(axis=-1)),
                ]
        return table


def plot(tasks: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    """Rows against loss, one panel a task."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(tasks), 4.5), layout="constrained")
    for number, (task, arms) in enumerate(tasks.items(), 1):
        axes = figure.add_subplot(1, len(tasks), number, title=task)
        axes.set(xlabel="rows of context", ylabel="loss, nats a token")
        axes.set_xscale("symlog", linthresh=10)
        for kind, marker in _KINDS.items():
            own = [(row["rows"], row["nll"]) for arm, row in arms.items() if _kind(arm) == kind]
            if own:
                axes.scatter(*zip(*own, strict=True), marker=marker, label=kind)
        axes.legend(loc="lower left")
    figure.savefig(path, dpi=110)


def _kind(arm: str) -> str:
    if ": " in arm:
        return arm.rpartition(": ")[2]
    return arm if arm in {"full", "none"} else "soft"


def _rivals(arm: str, losses: dict[str, Any]) -> dict[str, str]:
    """What an arm is to be compared with: text of as many rows, chance of the same share."""
    found = {name: f"{arm}: {name}" for name in ("cut", "recomp", "others")}
    found["random"] = f"{arm.rpartition(' ')[0]} random"
    return {name: other for name, other in found.items() if other in losses and other != arm}


def _recovered(losses: dict[str, Any], own: NDArray[Any], picks: Any) -> Any:
    """How much of the context's worth is kept, over the samples in ``picks`` [..., samples]."""
    none, full, found = (arm[picks].mean(axis=-1) for arm in (losses["none"], losses["full"], own))
    return (none - found) / (none - full)
