"""Runs a sentence scorer over many passages: tokens, windows, batches, one score a sentence."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ragpack.models.batches import token_batches
from ragpack.models.sentence_scorer import SentenceScorer
from ragpack.models.sentence_windows import (
    Window,
    collate,
    sentence_means,
    special_ids,
    windows,
)
from ragpack.models.token_counter import plain_tokenizer
from ragpack.text import model_text

__all__ = ["SentenceReader", "Tokens"]

_QUERY_TOKENS, _TITLE_TOKENS, _WINDOW_TOKENS = 96, 32, 256
# Padded tokens of a batch. On a CPU a window alone is quicker than several with their padding.
_CPU_BATCH_TOKENS = 256
_GPU_BATCH_TOKENS = 32_768


@dataclass(frozen=True, slots=True)
class Tokens:
    """A passage as token ids: its title, and each of its sentences."""

    title: list[int]
    sentences: list[list[int]]


class SentenceReader:
    """Keep-probabilities of sentences under a query; may be called from several threads.

    A query is read up to its first 96 tokens and a title up to its first 32. The text is read
    whole: what does not fit one window of 256 tokens is read in several.

    Args:
        scorer: the model, in evaluation mode, on the device it shall run on.
        tokenizer: the encoder's ``tokenizer.json``.
    """

    def __init__(self, scorer: SentenceScorer, tokenizer: Path) -> None:
        self._scorer = scorer
        on_cpu = scorer.match.device.type == "cpu"
        self._batch_tokens = _CPU_BATCH_TOKENS if on_cpu else _GPU_BATCH_TOKENS
        self._tokenizer = plain_tokenizer(Tokenizer.from_file(str(tokenizer)))
        self._specials = special_ids(self._tokenizer)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        clean = [model_text(text) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(clean, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def read(self, query: Sequence[int], passages: Sequence[Tokens]) -> list[list[float]]:
        """Keep-probability of every sentence of every passage; 0 for one without tokens."""
        rows = [
            (number, window)
            for number, passage in enumerate(passages)
            for window in self._windows(query, passage)
        ]
        values: list[list[Tensor]] = [[] for _ in passages]
        owners: list[list[int]] = [[] for _ in passages]
        for numbers in token_batches([len(window.ids) for _, window in rows], self._batch_tokens):
            batch = [rows[number] for number in numbers]
            for (number, window), kept in zip(batch, self._forward(batch), strict=True):
                values[number].append(kept[: len(window.ids)])
                owners[number] += window.owners
        return [
            _means(values[number], owners[number], len(passage.sentences))
            for number, passage in enumerate(passages)
        ]

    def _windows(self, query: Sequence[int], passage: Tokens) -> Iterator[Window]:
        return windows(
            query[:_QUERY_TOKENS],
            passage.title[:_TITLE_TOKENS],
            passage.sentences,
            self._specials,
            _WINDOW_TOKENS,
        )

    def _forward(self, batch: Sequence[tuple[int, Window]]) -> Tensor:
        """Keep-probabilities [len(batch), longest]."""
        ids, types, mask, _ = collate([window for _, window in batch])
        device = self._scorer.match.device
        with torch.inference_mode():
            logits: Tensor = self._scorer(ids.to(device), types.to(device), mask.to(device))
            return logits.sigmoid().float().cpu()


def _means(values: Sequence[Tensor], owners: Sequence[int], count: int) -> list[float]:
    if not values:
        return [0.0] * count
    means = sentence_means(torch.cat(list(values)), torch.tensor(owners), count)
    return [float(mean) for mean in means]
