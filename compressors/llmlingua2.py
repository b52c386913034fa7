"""LLMLingua-2: the words that a small classifier would keep, whatever the question is.

Source: Pan et al., "LLMLingua-2: Data Distillation for Efficient and Faithful Task-Agnostic Prompt
Compression", ACL Findings 2024, section 4. Which words are kept equals ``llmlingua`` 0.2.2 on the
same classifier; a word is handed on as it stands in the passage, not as a tokenizer would write it.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from ragpack import models
from ragpack.errors import ConfigError, UnsupportedModel
from ragpack.protocols import Compressor
from ragpack.text import model_text
from ragpack.types import Artifact, EmbedsArtifact, Fingerprint, Kind, Passage, TextArtifact

from . import _llmlingua2_words as reading
from ._llmlingua2_vocabulary import Vocabulary

if TYPE_CHECKING:
    from ragpack.models import TokenClassifier

__all__ = ["DEFAULT_CLASSIFIER", "DEFAULT_RATE", "LLMLingua2"]

DEFAULT_CLASSIFIER = "microsoft/llmlingua-2-bert-base-multilingual-cased-meetingbank"
DEFAULT_RATE = 0.5
"""Share of a passage's tokens to keep where neither a rate nor a budget is set."""

_MAX_FORCE_TOKENS = 100
_KEEP = 1
_PROBABILITY, _TOKENS, _CHUNK, _FORCE = range(4)


class LLMLingua2(Compressor):
    r"""Keeps the words whose probability lies above a percentile of their chunk's.

    The classifier reads a passage's text in chunks of about 510 tokens. Each word and its
    probability are stored, so that another ``rate`` reads nothing again. Where ``rate`` is not set,
    a request with a budget ranks every word and leaves the cut to the budget; one without keeps
    :data:`DEFAULT_RATE`.

    Unlike upstream, a rate of 1 gives the text as it is, a chunk that the rule would empty keeps
    its best word, and a text of which the classifier knows no word is kept whole.

    Args:
        classifier: a name for :func:`ragpack.models.load_token_classifier`, or a classifier; its
            second label means "keep".
        rate: share of the tokens to keep, above 0 and at most 1.
        force_tokens: strings that are always kept, such as ``"\n"``; at most 100.
        force_reserve_digit: always keep tokens with a digit.
        drop_consecutive: of equal force tokens with nothing kept between them, keep the first.
        counter: name of the tokenizer whose tokens are a word's weight in the percentile; the
            classifier's own where None. Upstream weighs by gpt-3.5-turbo's, which as a hub id is
            ``Xenova/gpt-3.5-turbo``.

    Raises:
        ConfigError: a setting is out of range.
    """

    name: ClassVar[str] = "llmlingua2"
    kind: ClassVar[Kind] = "embeds"
    query_aware: ClassVar[bool] = False

    def __init__(
        self,
        classifier: "str | TokenClassifier" = DEFAULT_CLASSIFIER,
        *,
        rate: float | None = None,
        force_tokens: Sequence[str] = (),
        force_reserve_digit: bool = False,
        drop_consecutive: bool = False,
        counter: str | None = None,
    ) -> None:
        if rate is not None and not 0 < rate <= 1:
            raise ConfigError(f"rate must be above 0 and at most 1, not {rate}")
        if not all(force_tokens) or len(force_tokens) > _MAX_FORCE_TOKENS:
            raise ConfigError(
                f"force_tokens must be at most {_MAX_FORCE_TOKENS} strings, none of them empty"
            )
        self.rate = rate
        self.force_tokens = tuple(force_tokens)
        self.force_reserve_digit = force_reserve_digit
        self.drop_consecutive = drop_consecutive
        self._classifier = classifier
        self._counter = counter

    @cached_property
    def classifier(self) -> "TokenClassifier":
        """The classifier; loaded on first use.

        Raises:
            ConfigError: it cannot be loaded, or has not two labels.
            UnsupportedModel: it cannot read chunks of the method's length.
        """
        chosen = self._classifier
        made = models.load_token_classifier(chosen) if isinstance(chosen, str) else chosen
        if made.labels != 2:
            raise ConfigError(
                f"{made.name} has {made.labels} labels; LLMLingua-2 needs two, drop and keep"
            )
        if made.positions < reading.WINDOW:
            raise UnsupportedModel(
                f"{made.name} reads {made.positions} tokens at once; LLMLingua-2's chunks need "
                f"{reading.WINDOW}"
            )
        return made

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The classifier's tokens under the force tokens."""
        return Vocabulary(self.classifier, self.force_tokens, self.force_reserve_digit)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Classifier, forced tokens and counter; ``rate`` changes nothing that is stored."""
        made = self.classifier.fingerprint
        counter = self._counter
        if counter is not None:
            counter = models.tokenizer_digest(models.checkpoint_folder(models.resolve(counter)))
        return Fingerprint(
            method=self.name,
            model=made.model,
            dtype="float32",
            params={
                "classifier": made.digest,
                "counter": counter,
                "force_reserve_digit": self.force_reserve_digit,
                "force_tokens": list(self.force_tokens),
            },
        )

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        """The words of each passage: ``vectors`` [words, 4], float32, and their spans.

        Columns: probability to be kept (1 where forced), tokens, number of the chunk, number of
        the force token that the word is (or -1). Spans ascend and are disjoint; one that is empty
        belongs to a word without a character of its own.
        """
        vocabulary = self.vocabulary
        texts = [model_text(passage.text) for passage in passages]
        chunks = reading.chunks(texts, vocabulary)
        flat = [chunk for own in chunks for chunk in own]
        rows = [reading.sequence(chunk, vocabulary) for chunk in flat]
        found = [
            reading.words(chunk, values[1 : len(chunk.ids) + 1, _KEEP], vocabulary)
            for chunk, values in zip(flat, self.classifier.probabilities(rows), strict=True)
        ]
        read = iter(self._weigh(flat, found))
        return [_artifact([next(read) for _ in own]) for own in chunks]

    def select(
        self,
        query: str,
        passages: Sequence[Passage],
        artifacts: Sequence[Artifact],
        budget: int | None = None,
    ) -> list[Artifact]:
        """The kept words of each passage, in order, with their probabilities."""
        rate = self.rate
        if rate is None and budget is None:
            rate = DEFAULT_RATE
        stored = [cast(EmbedsArtifact, artifact) for artifact in artifacts]
        return [
            self._pick(passage, each, rate) for passage, each in zip(passages, stored, strict=True)
        ]

    def _pick(self, passage: Passage, words: EmbedsArtifact, rate: float | None) -> TextArtifact:
        if not passage.text.strip():
            return TextArtifact()
        if rate == 1 or not words.spans:
            return TextArtifact(spans=((0, len(passage.text)),))
        kept = np.ones(len(words.spans), np.bool_)
        if rate is not None:
            bounds = _chunk_bounds(words.vectors)
            rows = [words.vectors[start:end] for start, end in pairwise(bounds)]
            kept = np.concatenate([self._keep(own, 1 - rate) for own in rows])
        chosen = [i for i in np.flatnonzero(kept).tolist() if words.spans[i][0] < words.spans[i][1]]
        scores = words.vectors[chosen, _PROBABILITY].tolist()
        return TextArtifact(tuple(words.spans[i] for i in chosen), tuple(scores))

    def _keep(self, words: NDArray[np.float32], reduce: float) -> NDArray[np.bool_]:
        """Which ``words`` [words, 4] of one chunk to keep, by upstream's rule; at least one."""
        probabilities: NDArray[Any] = words[:, _PROBABILITY]
        if (probabilities == 1).any():  # a forced word makes upstream's percentile a double
            probabilities = probabilities.astype(np.float64)
        force, tokens = words[:, _FORCE], words[:, _TOKENS].astype(np.int64)
        if self.drop_consecutive:
            likely = probabilities > np.percentile(probabilities, int(100 * reduce))
            repeated = _repeats(force, np.ones_like(likely), likely)
            probabilities = np.where(repeated, 0, probabilities)
        threshold = np.percentile(np.repeat(probabilities, tokens), int(100 * reduce + 1))
        kept: NDArray[np.bool_] = (probabilities > threshold) | (
            (threshold == 1) & (probabilities == 1)
        )
        if self.drop_consecutive:
            kept &= ~_repeats(force, kept, kept)
        if not kept.any():
            kept = probabilities == probabilities.max()
        return kept

    def _weigh(
        self, chunks: Sequence[reading.Chunk], words: Sequence[reading.Words]
    ) -> list[reading.Words]:
        """``words`` with the tokens that the named counter finds in them; at least one in each."""
        if self._counter is None or not words:
            return list(words)
        counter = models.load_token_counter(self._counter)
        texts = [reading.strings(chunk, self.vocabulary) for chunk in chunks]
        counts = np.maximum(counter.count([text for own in texts for text in own]), 1)
        parts = np.split(counts, np.cumsum([len(own) for own in texts])[:-1])
        return [replace(own, tokens=count) for own, count in zip(words, parts, strict=True)]


def _artifact(chunks: Sequence[reading.Words]) -> EmbedsArtifact:
    """The words of a passage's chunks as one artifact."""
    rows = [
        np.stack(
            [
                words.probabilities,
                words.tokens,
                np.full(len(words.tokens), number),
                words.force,
            ],
            axis=1,
        ).astype(np.float32)
        for number, words in enumerate(chunks)
    ]
    if not rows:
        return EmbedsArtifact(np.zeros((0, 4), np.float32))
    spans = np.concatenate([words.spans for words in chunks])
    # One character may be read as several words ("…" as three full stops): the last has it.
    ends = np.minimum(spans[:, 1], np.append(spans[1:, 0], spans[-1:, 1]))
    return EmbedsArtifact(
        np.concatenate(rows), tuple(zip(spans[:, 0].tolist(), ends.tolist(), strict=True))
    )


def _chunk_bounds(words: NDArray[np.float32]) -> list[int]:
    """Where each chunk of ``words`` [words, 4] begins, and where the last one ends."""
    changes = np.flatnonzero(np.diff(words[:, _CHUNK])) + 1
    return [0, *changes.tolist(), len(words)]


def _repeats(
    force: NDArray[np.float32], present: NDArray[np.bool_], kept: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """The force tokens ``present`` that equal the one before, with no other word kept between.

    All arrays are [words].
    """
    at = np.flatnonzero((force >= 0) & present)
    passed = ((force < 0) & kept).cumsum()[at]
    same = (force[at[1:]] == force[at[:-1]]) & (passed[1:] == passed[:-1])
    repeated = np.zeros(len(force), np.bool_)
    repeated[at[1:][same]] = True
    return repeated
