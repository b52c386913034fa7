"""LLMLingua-2's chunks and words: texts cut for a classifier, its tokens joined into words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ragpack.types import Span

from ._llmlingua2_vocabulary import Vocabulary

__all__ = ["WINDOW", "Chunk", "Words", "chunks", "sequence", "strings", "words"]

WINDOW = 512
"""Tokens of the longest sequence that the classifier is given."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Token ids [tokens] of a slice of a text, and the characters of each [tokens, 2]."""

    ids: NDArray[np.int64]
    spans: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a chunk, in order.

    Shapes: ``spans`` [words, 2] character ranges; ``probabilities`` [words] to be kept, the mean
    over a word's tokens; ``tokens`` [words] their number; ``force`` [words] number of the force
    token that a word is, or -1.
    """

    spans: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    tokens: NDArray[np.int64]
    force: NDArray[np.int64]


def chunks(texts: Sequence[str], vocabulary: Vocabulary) -> list[list[Chunk]]:
    """The chunks of each text: all of it, or slices that end behind a full stop if they can."""
    whole = _encode(texts, vocabulary)
    cuts = [list(_cut(chunk, vocabulary)) for chunk in whole]
    slices = [text[start:end] for text, own in zip(texts, cuts, strict=True) for start, end in own]
    read = iter(_encode(slices, vocabulary))  # anew, because a slice may begin within a word
    return [
        [part for start, _ in own for part in _parts(next(read), start)] or list(_parts(chunk, 0))
        for own, chunk in zip(cuts, whole, strict=True)
    ]


def sequence(chunk: Chunk, vocabulary: Vocabulary) -> NDArray[np.int64]:
    """The ids that the classifier reads: at most :data:`WINDOW`, the last being expendable."""
    first, last = vocabulary.around
    return np.concatenate([[first], vocabulary.inputs[chunk.ids], [last]])[:WINDOW]


def words(chunk: Chunk, probabilities: NDArray[np.float32], vocabulary: Vocabulary) -> Words:
    """The words of ``chunk``, from its tokens' ``probabilities`` [tokens] to be kept.

    A token that the classifier does not know counts for nothing, but its characters go with the
    word that it stands in. A word's tokens are added in order and in float32, so that the mean is
    upstream's bit by bit (``np.add.reduceat`` adds in another order).
    """
    ids = chunk.ids
    known, owner = ~vocabulary.skipped[ids], _owners(ids, vocabulary)
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    last = np.append(first[1:], len(ids)) - 1
    tokens = np.bincount(owner[known], minlength=len(first))
    sums = np.zeros(len(first), np.float32)
    kept = np.where(vocabulary.forced[ids], np.float32(1), probabilities)
    np.add.at(sums, owner[known], kept[known])
    real = tokens > 0
    return Words(
        spans=np.stack([chunk.spans[first, 0], chunk.spans[last, 1]], axis=1)[real],
        probabilities=np.divide(sums[real], tokens[real], dtype=np.float32),
        tokens=tokens[real],
        force=np.where(tokens == 1, vocabulary.force[ids[first]], -1)[real],
    )


def strings(chunk: Chunk, vocabulary: Vocabulary) -> list[str]:
    """The words of ``chunk`` as upstream writes them; XLM-RoBERTa's keep their ``▁``."""
    known = ~vocabulary.skipped[chunk.ids]
    ids, owner = chunk.ids[known].tolist(), _owners(chunk.ids, vocabulary)[known]
    bounds = [*np.flatnonzero(np.diff(owner, prepend=-1)).tolist(), len(ids)]
    texts, tails = vocabulary.texts, vocabulary.tails
    return [
        texts[ids[start]] + "".join(tails[number] for number in ids[start + 1 : end])
        for start, end in pairwise(bounds)
    ]


def _encode(texts: Sequence[str], vocabulary: Vocabulary) -> list[Chunk]:
    encodings = vocabulary.tokenizer.encode_batch(texts, add_special_tokens=False)
    return [
        Chunk(np.array(each.ids, np.int64), np.array(each.offsets, np.int64).reshape(-1, 2))
        for each in encodings
    ]


def _cut(chunk: Chunk, vocabulary: Vocabulary) -> Iterator[Span]:
    """The slices of a text of more tokens than a chunk can hold; none where it is not."""
    room, tokens, start = WINDOW - 2, len(chunk.ids), 0
    ends = np.flatnonzero(np.isin(chunk.ids, vocabulary.chunk_ends))
    while start < tokens and tokens > room:
        last = tokens - 1
        if tokens - start > room:
            last = start + room  # one token more than room, as upstream has it
            before = ends[(ends > start) & (ends <= last)]
            last = int(before[-1]) if len(before) else last
        yield int(chunk.spans[start, 0]), int(chunk.spans[last, 1])
        start = last + 1


def _parts(chunk: Chunk, offset: int) -> Iterator[Chunk]:
    """``chunk``, its characters counted from ``offset``; in two where it grew in a second reading.

    Upstream cuts off what is too long and loses it.
    """
    room = WINDOW - 1
    for start in range(0, len(chunk.ids), room):
        end = start + room
        yield Chunk(chunk.ids[start:end], chunk.spans[start:end] + offset)


def _owners(ids: NDArray[np.int64], vocabulary: Vocabulary) -> NDArray[np.int64]:
    """The number of the word [tokens] that each of ``ids`` belongs to, from 0."""
    begins = vocabulary.begins[ids]
    begins[:1] = True
    return begins.cumsum() - 1
