"""What `kv_quality.py` has measured: a figure for each question and setting, and their means."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from common import Kept, interval

__all__ = ["Figure", "Figures"]

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Figure:
    """One setting on one question; ``f1`` is None where no answer was asked for."""

    question: int
    setting: str
    loss: float
    divergence: float
    prompt_tokens: int
    f1: float | None = None


class Figures:
    """Every figure so far, by question and setting.

    Args:
        kept: where they are kept.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._by: dict[tuple[int, str], Figure] = {}
        for record in kept.found:
            self._take(Figure(**record))

    def missing(self, question: int, settings: list[str]) -> list[str]:
        """The settings that are still to be measured on a question."""
        return [name for name in settings if (question, name) not in self._by]

    def add(self, figure: Figure) -> None:
        """Keep a figure."""
        self._take(figure)
        self._kept.add(asdict(figure))

    def _take(self, figure: Figure) -> None:
        self._by[figure.question, figure.setting] = figure

    def to_dict(self, questions: int, settings: list[str], seed: int) -> dict[str, Any]:
        """Means over the first ``questions``, with 95 % intervals of what is recovered."""
        rows = {name: [self._by[i, name] for i in range(questions)] for name in settings}
        losses = {name: np.array([row.loss for row in rows[name]]) for name in settings}
        picks = np.random.default_rng(seed).integers(questions, size=(_RESAMPLES, questions))
        tokens = statistics.fmean(row.prompt_tokens for row in rows["sequential"])
        return {
            "questions": questions,
            "mean_prompt_tokens": round(tokens),
            "settings": {
                name: {
                    "nll": round(float(losses[name].mean()), 4),
                    "recovered": round(float(_recovered(losses, name, slice(None))), 4),
                    "recovered_95": interval(_recovered(losses, name, picks)),
                    **_divergence([row.divergence for row in rows[name]], picks),
                    **_f1([row.f1 for row in rows[name] if row.f1 is not None], picks),
                }
                for name in settings
            },
        }


def _recovered(losses: dict[str, Any], name: str, picks: Any) -> Any:
    """The share of the passages' worth, over the questions in ``picks`` [..., questions]."""
    arms = ("none", "sequential", name)
    none, best, found = (losses[arm][picks].mean(axis=-1) for arm in arms)
    return (none - found) / (none - best)


def _divergence(values: list[float], picks: Any) -> dict[str, Any]:
    return {
        "kl": round(statistics.fmean(values), 4),
        "kl_95": interval(np.array(values)[picks].mean(axis=-1)),
        "kl_median": round(statistics.median(values), 4),
        "kl_max": round(max(values), 4),
    }


def _f1(values: list[float], picks: Any) -> dict[str, Any]:
    if not values:
        return {}
    return {
        "f1": round(statistics.fmean(values), 4),
        "f1_95": interval(np.array(values)[picks].mean(axis=-1)),
    }
