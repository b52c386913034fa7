"""Digests of structured values: injective, 256 bits, equal on every machine.

Every field is written as an 8-byte length and its bytes, so no two different tuples of fields
give the same input to the hash (a join with a separator would).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from ragpack.text import utf8

__all__ = ["DIGEST_BYTES", "canonical_json", "digest_fields", "digest_file"]

DIGEST_BYTES = 32


def digest_fields(*fields: str | bytes) -> str:
    """BLAKE3 over length-prefixed ``fields``, as 64 hexadecimal digits."""
    hasher = blake3()
    for field in fields:
        data = utf8(field) if isinstance(field, str) else field
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.hexdigest()


def digest_file(path: Path) -> str:
    """BLAKE3 of a file's bytes, read through a memory map."""
    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()


def canonical_json(value: Mapping[str, Any]) -> str:
    """JSON with sorted keys and no spaces: equal values give equal bytes.

    Raises:
        ValueError: ``value`` holds NaN or infinity.
        TypeError: ``value`` holds something that is not JSON.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
