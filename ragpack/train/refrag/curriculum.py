"""What a training step practises: from copying one chunk to answering from many."""

import random
from typing import Literal

__all__ = ["CHUNKS", "Lesson", "chunk_counts", "lesson"]

Lesson = Literal["repeat", "continue", "answer"]
"""Say a context again; go on with the text behind it; answer a question from it."""

CHUNKS = (1, 2, 4, 8)
"""Chunks in a context to repeat, from the first stage of the curriculum to the last."""

_WARM_UP = 0.05
"""Share of the steps that only repeat: REFRAG's first stage, before the decoder's own task."""
_LATER: dict[Lesson, float] = {"repeat": 0.15, "continue": 0.15, "answer": 0.7}
_RATIO = 0.4
"""How much rarer than the stage at hand each neighbouring stage is."""


def lesson(progress: float, draw: random.Random) -> Lesson:
    """What to practise when ``progress`` (0 to 1) of the steps is done."""
    if progress < _WARM_UP:
        return "repeat"
    return draw.choices(list(_LATER), weights=list(_LATER.values()))[0]


def chunk_counts(progress: float, draw: random.Random, batch: int) -> list[int]:
    """Chunks of each context to repeat, geometrically mixed around the stage at hand."""
    stage = min(progress / _WARM_UP, 1.0) * (len(CHUNKS) - 1)
    weights = [_RATIO ** abs(place - stage) for place in range(len(CHUNKS))]
    return draw.choices(CHUNKS, weights=weights, k=batch)
