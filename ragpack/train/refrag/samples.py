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

_PASSAGE, _CONTEXT, _TARGET = 64, 96, 32
"""Tokens of each passage of a question, of a context to go on with, and of what comes next: short,
because a CPU trains this."""
_GO_ON = "How does the text go on?"
_SPELLED_OUT, _SHARE = 1 / 3, 0.15
"""Share of the steps of questions in which some chunks are spelled out, and of their chunks."""
_READ = 6000
"""Characters of a long text from which a window is taken."""

Tokens = list[tuple[int, Span]]


@dataclass(frozen=True, slots=True)
class Sample:
    """A context in chunks, the tokens ``between`` it and the target, and what is to come next.

    The chunks under the mask ``expanded`` [n] are spelled out in training.
    """

    chunks: Chunks
    between: Sequence[int]
    target: Sequence[int]
    expanded: NDArray[np.bool_]

    def reading(self, expanded: NDArray[np.bool_]) -> Reading:
        """With the chunks under the mask ``expanded`` [n] spelled out."""
        return Reading(places(self.chunks.token_ids, expanded), self.between, self.target)

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
        self._go_on = prompts.after_separator(_GO_ON)
        self._sizes = sizes

    def step(self, progress: float, batch: int, draw: random.Random) -> tuple[Lesson, list[Sample]]:
        """What to practise, and on which samples."""
        kind, k = lesson(progress, draw), draw.choice(self._sizes)
        if kind == "repeat":
            return kind, [self._repeated(n, k, draw) for n in chunk_counts(progress, draw, batch)]
        if kind == "continue":
            return kind, [self._continued(k, draw) for _ in range(batch)]
        share = _SHARE if draw.random() < _SPELLED_OUT else 0.0
        asked = draw.choices(self._texts.questions, k=batch)
        return kind, [self.answered(each, k, draw, share) for each in asked]

    def answered(self, asked: Asked, k: int, draw: random.Random, share: float = 0.0) -> Sample:
        """The sample of a question: a part of its passage that holds the answer, and of another."""
        other = draw.choice(self._texts.questions)
        passages = [self._part(each, k, draw) for each in (asked, other)]
        draw.shuffle(passages)
        token_ids = np.concatenate([passage.token_ids for passage in passages])
        chunks = Chunks(token_ids, [text for passage in passages for text in passage.texts])
        expanded = np.zeros(len(token_ids), dtype=bool)
        expanded[draw.sample(range(len(token_ids)), round(share * len(token_ids)))] = True
        between = self._prompts.after_separator(asked.question)
        return Sample(chunks, between, self._prompts.encode(asked.answer), expanded)

    def _part(self, asked: Asked, k: int, draw: random.Random) -> Chunks:
        """Some neighbouring tokens of a passage with the answer among them, as a passage."""
        text = model_text(asked.context)
        spans = [span for _, span in self._prompts.tokens_before_text(text)]
        before = sum(end <= asked.start for _, end in spans)
        within = sum(start < asked.start + len(asked.answer) for start, _ in spans)
        latest = max(0, min(before, len(spans) - _PASSAGE))
        some = spans[draw.randint(min(latest, max(0, within - _PASSAGE)), latest) :][:_PASSAGE]
        part = text[some[0][0] : some[-1][1]] + SEPARATOR
        return cut(part, self._prompts.tokens_before_text(part), k)

    def _continued(self, k: int, draw: random.Random) -> Sample:
        text, tokens = self._window(_CONTEXT + _TARGET, draw)
        target = [token for token, _ in tokens[_CONTEXT:]]
        return self._soft(cut(text, tokens[:_CONTEXT], k), self._go_on, target)

    def _repeated(self, chunks: int, k: int, draw: random.Random) -> Sample:
        text, tokens = self._window(chunks * k, draw)
        return self._soft(cut(text, tokens, k), self._repeat, [token for token, _ in tokens])

    @staticmethod
    def _soft(chunks: Chunks, between: Sequence[int], target: Sequence[int]) -> Sample:
        return Sample(chunks, between, target, np.zeros(len(chunks.texts), dtype=bool))

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
