"""Sequences for a sentence scorer: query, title and sentences, cut into windows and batched."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ragpack.errors import ConfigError

__all__ = ["Window", "collate", "sentence_means", "special_ids", "windows"]


@dataclass(frozen=True, slots=True)
class Window:
    """One sequence for the encoder.

    ``types`` is 0 for the query and 1 for title and text; ``owners`` is the number of the sentence
    that a token belongs to, -1 for query, title and special tokens.
    """

    ids: list[int]
    types: list[int]
    owners: list[int]


def windows(
    query: Sequence[int],
    title: Sequence[int],
    sentences: Sequence[Sequence[int]],
    specials: tuple[int, int],
    limit: int,
) -> Iterator[Window]:
    """Sequences of at most ``limit`` tokens that together hold every token of every sentence.

    A window ends between two sentences; only a sentence that fills more than a window is split.

    Args:
        query: token ids, without special tokens.
        title: token ids, repeated in every window.
        sentences: token ids of each sentence.
        specials: ids of ``[CLS]`` and ``[SEP]``.
        limit: the encoder's window; query and title must leave room in it.
    """
    start, stop = specials
    head = [start, *query, stop, *title]
    types = [0] * (len(query) + 2) + [1] * len(title)
    room = limit - len(head) - 1
    if room < 1:
        raise ConfigError(f"query and title fill the window of {limit} tokens")
    for body, owners in _fill(sentences, room):
        yield Window(
            ids=[*head, *body, stop],
            types=types + [1] * (len(body) + 1),
            owners=[-1] * len(head) + owners + [-1],
        )


def _fill(sentences: Sequence[Sequence[int]], room: int) -> Iterator[tuple[list[int], list[int]]]:
    body: list[int] = []
    owners: list[int] = []
    for number, sentence in enumerate(sentences):
        for at in range(0, len(sentence), room):
            piece = sentence[at : at + room]
            if body and len(body) + len(piece) > room:
                yield body, owners
                body, owners = [], []
            body = [*body, *piece]
            owners = owners + [number] * len(piece)
    if body:
        yield body, owners


def special_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    """Ids of ``[CLS]`` and ``[SEP]``.

    Raises:
        ConfigError: the tokenizer is not BERT's.
    """
    start, stop = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    if start is None or stop is None:
        raise ConfigError("a sentence scorer needs a BERT tokenizer with [CLS] and [SEP]")
    return start, stop


def collate(batch: Sequence[Window]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Padded ids, types, attention mask and owners, each [len(batch), longest]."""
    widest = max(len(window.ids) for window in batch)
    columns = [(w.ids, w.types, [1] * len(w.ids), w.owners) for w in batch]
    ids, types, mask, owners = (
        torch.tensor([row + [fill] * (widest - len(row)) for row in rows])
        for rows, fill in zip(zip(*columns, strict=True), (0, 0, 0, -1), strict=True)
    )
    return ids, types, mask, owners


def sentence_means(values: Tensor, owners: Tensor, count: int) -> Tensor:
    """Mean of ``values`` over the tokens of each sentence [count]; 0 for one without tokens.

    Args:
        values: any shape, one value a token.
        owners: the same shape, sentence numbers in ``range(count)``, or -1 for none.
        count: number of sentences.
    """
    held = owners >= 0
    numbers = owners[held]
    sums = values.new_zeros(count).index_add(0, numbers, values[held])
    return sums / torch.bincount(numbers, minlength=count).clamp(min=1)
