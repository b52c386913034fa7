"""Batches of similar length, so that little is spent on padding."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TypeVar

__all__ = ["LEAST_TOKENS", "equal_batches", "filled", "token_batches"]

LEAST_TOKENS = 16
"""A product of fewer rows takes another path through a CPU's kernels, and rounds differently."""

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
    long as a batch has :data:`LEAST_TOKENS` (see :func:`filled`).
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    for length, rows in groupby(order, key=lengths.__getitem__):
        same = list(rows)
        size = max(1, limit // max(1, length))
        yield from (same[start : start + size] for start in range(0, len(same), size))


def filled(rows: Sequence[Sequence[Row]]) -> list[Sequence[Row]]:
    """Rows of one length, repeated as a whole until they have :data:`LEAST_TOKENS`."""
    tokens = max(1, sum(map(len, rows)))
    return list(rows) * -(-LEAST_TOKENS // tokens)
