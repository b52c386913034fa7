"""How the durable stores lay out a value: a manifest, and chunks of 1 MiB beside it.

A value of up to 64 KiB lies in its manifest, so that the usual artifact is one read. Chunks are
written first and the manifest last; a reader takes anything missing or of another length for a
miss. Both Redis and LMDB move 1 MiB pieces at about three times the speed of 8 MiB ones.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from ragpack.errors import CacheUnavailable
from ragpack.protocols import Buffer

__all__ = [
    "CHUNK_BYTES",
    "HEAD_BYTES",
    "INLINE_BYTES",
    "MAX_VALUE_BYTES",
    "Manifest",
    "count",
    "pieces",
    "read_manifest",
    "read_size",
    "split",
]

CHUNK_BYTES = (1 << 20) - 64
"""64 bytes short of 1 MiB: with the store's own header it fills whole pages, and none beyond."""
INLINE_BYTES = 1 << 16
MAX_VALUE_BYTES = 1 << 30
_MAGIC = b"RPM1"
_HEAD = struct.Struct("<4s4xQ")  # magic, size of the value; 16 bytes keep what follows aligned
HEAD_BYTES = _HEAD.size


class Manifest(NamedTuple):
    """The size of a value, and the value itself where it is small enough to lie here."""

    size: int
    inline: memoryview | None


def split(value: Buffer) -> tuple[bytes, list[memoryview]]:
    """A value's manifest, and views of its chunks.

    Raises:
        CacheUnavailable: the value is larger than any reader would accept.
    """
    data = memoryview(value).cast("B")
    if len(data) > MAX_VALUE_BYTES:
        raise CacheUnavailable(
            f"a value of {len(data)} bytes is over the limit of {MAX_VALUE_BYTES}"
        )
    head = _HEAD.pack(_MAGIC, len(data))
    if count(len(data)) == 0:
        return head + data, []
    return head, [data[piece] for piece in pieces(len(data))]


def read_manifest(record: Buffer | None) -> Manifest | None:
    """What a stored manifest says; None for one that is missing, odd or over the limit."""
    size = read_size(record)
    if record is None or size is None:
        return None
    inline = memoryview(record)[HEAD_BYTES:]
    if len(inline) != (0 if count(size) else size):
        return None
    return Manifest(size, None if count(size) else inline)


def read_size(head: Buffer | None) -> int | None:
    """The value's size, from the first ``HEAD_BYTES`` of a manifest or more; None as above."""
    if head is None or len(head) < HEAD_BYTES:
        return None
    magic, size = _HEAD.unpack_from(head)
    return int(size) if magic == _MAGIC and size <= MAX_VALUE_BYTES else None


def count(size: int) -> int:
    """How many chunks a value of ``size`` bytes has beside its manifest."""
    return 0 if size <= INLINE_BYTES else -(-size // CHUNK_BYTES)


def pieces(size: int) -> Iterator[slice]:
    """Where each chunk lies in a value of ``size`` bytes."""
    for start in range(0, count(size) * CHUNK_BYTES, CHUNK_BYTES):
        yield slice(start, min(start + CHUNK_BYTES, size))
