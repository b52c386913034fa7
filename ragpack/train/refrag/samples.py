"""From texts to samples: a context in chunks, what stands behind it, and what is to come next."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragpack.models.prompt import SEPARATOR
from ragpack.models.prompt_tokens import PromptTokenizer
from ragpack.soft.chunks import Chunks, cut, places
from ragpack.soft.reader import Reading
from ragpack.text import model_text
from ragpack.train.refrag.curriculum import Lesson, chunk_counts, lesson
from ragpack.train.refrag.data import Asked, Texts
from ragpack.types import Span

__all__ = ["Sample", "Sampler"]

_CONTEXT, _TARGET = 96, 32
"""Tokens of a context, and of the text to go on with: short, because a CPU trains this."""
_READ = 6000
"""Characters of a long text from which a window is taken."""

Tokens = list[tuple[int, Span]]


@dataclass(frozen=True, slots=True)
class Sample:
    """A context in chunks, the tokens ``between`` it and the target, and what is to come next."""

    chunks: Chunks
    between: Sequence[int]
    target: Sequence[int]

    def reading(self, expanded: NDArray[np.bool_]) -> Reading:
        """With the chunks under the mask ``expanded`` [n] spelled out."""
        return Reading(places(self.chunks.token_ids, expanded), self.between, self.target)

    @property
    def soft(self) -> Reading:
        """With no chunk spelled out."""
        return self.reading(np.zeros(len(self.chunks.texts), dtype=bool))

    @property
    def spelled_out(self) -> Reading:
        """With every chunk spelled out."""
        return self.reading(np.ones(len(self.chunks.texts), dtype=bool))


class Sampler:
    """Draws the samples of a step; the same step gives the same samples.

    Args:
        texts: what to draw from.
        prompts: the decoder's.
        sizes: tokens a chunk may have; every step has one of them.
        repeat: tokens that ask to repeat the context.
    """

    def __init__(
        self,
        texts: Texts,
        prompts: PromptTokenizer,
        sizes: Sequence[int],
        repeat: Sequence[int],
    ) -> None:
        self._texts = texts
        self._prompts = prompts
        self._repeat = repeat
        self._sizes = sizes

    def step(self, progress: float, batch: int, draw: random.Random) -> tuple[Lesson, list[Sample]]:
        """What to practise, and on which samples."""
        kind, k = lesson(progress, draw), draw.choice(self._sizes)
        if kind == "repeat":
            return kind, [self._repeated(n, k, draw) for n in chunk_counts(progress, draw, batch)]
        if kind == "continue":
            return kind, [self._continued(k, draw) for _ in range(batch)]
        return kind, [self.answered(draw.choice(self._texts.questions), k) for _ in range(batch)]

    def answered(self, asked: Asked, k: int) -> Sample:
        """The sample of a question: a window of its passage around the answer."""
        text = model_text(asked.context) + SEPARATOR
        tokens = self._prompts.tokens_before_text(text)
        place = sum(span[1] <= asked.start for _, span in tokens)
        first = max(0, min(place - _CONTEXT // 2, len(tokens) - _CONTEXT))
        chunks = cut(text, tokens[first : first + _CONTEXT], k)
        between = self._prompts.after_separator(asked.question)
        return Sample(chunks, between, self._prompts.encode(asked.answer))

    def _continued(self, k: int, draw: random.Random) -> Sample:
        text, tokens = self._window(_CONTEXT + _TARGET, draw)
        target = [token for token, _ in tokens[_CONTEXT:]]
        return Sample(cut(text, tokens[:_CONTEXT], k), [], target)

    def _repeated(self, chunks: int, k: int, draw: random.Random) -> Sample:
        text, tokens = self._window(chunks * k, draw)
        return Sample(cut(text, tokens, k), self._repeat, [token for token, _ in tokens])

    def _window(self, size: int, draw: random.Random) -> tuple[str, Tokens]:
        """A text and ``size`` neighbouring tokens of it."""
        while True:
            text = self._texts.text(draw)
            at = draw.randrange(max(1, len(text) - _READ))
            text = model_text(text[at : at + _READ])
            tokens = self._prompts.tokens_before_text(text)
            if len(tokens) >= size:
                first = draw.randrange(len(tokens) - size + 1)
                return text, tokens[first : first + size]
