"""Batches of similar length, so that little is spent on padding."""

from collections.abc import Iterator, Sequence

__all__ = ["token_batches"]


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
