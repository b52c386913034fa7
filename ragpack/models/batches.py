"""Batches of similar length, so that little is spent on padding."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TypeVar

import torch

__all__ = ["equal_batches", "filled", "packed_batches", "token_batches"]

_LEAST, _LEAST_OF_A_THREAD = 16, 2.5
"""Tokens of a run. A product of fewer rows takes another path through a CPU's kernels, and rounds
differently; it is 4 rows with one thread, 12 with two to eight, 28 with 16, 104 with 64 (MKL)."""

Row = TypeVar("Row")


def token_batches(lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Row numbers, longest first, in batches of at most ``limit`` padded tokens.

    A row that is longer than ``limit`` makes a batch of its own.
    """
    batch: list[int] = []
    widest = 1
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and (len(batch) + 1) * widest > limit:
            yield batch
            batch = []
        if not batch:
            widest = max(1, lengths[row])
        batch.append(row)
    if batch:
        yield batch


def equal_batches(lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Row numbers in batches of one length each, of at most ``limit`` tokens or a single row.

    Nothing is padded, so a row's result has the same bits whatever stands beside it: on a CPU, as
    long as a batch is :func:`filled`.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    for length, rows in groupby(order, key=lengths.__getitem__):
        same = list(rows)
        size = max(1, limit // max(1, length))
        yield from (same[start : start + size] for start in range(0, len(same), size))


def packed_batches(lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Row numbers, longest first, in batches of at most ``limit`` tokens or a single row.

    For runs without padding, see :mod:`ragpack.models.packed`.
    """
    batch: list[int] = []
    tokens = 0
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and tokens + lengths[row] > limit:
            yield batch
            batch, tokens = [], 0
        batch.append(row)
        tokens += lengths[row]
    if batch:
        yield batch


def filled(rows: Sequence[Sequence[Row]]) -> list[Sequence[Row]]:
    """The rows, repeated as a whole until they have the tokens that a CPU needs.

    So many that a product's result for a row has the same bits however many rows there are.
    """
    tokens = max(1, sum(map(len, rows)))
    least = max(_LEAST, math.ceil(_LEAST_OF_A_THREAD * torch.get_num_threads()))
    return list(rows) * -(-least // tokens)
