"""The frame around a stored artifact: ``prefix | header | payload | tag``.

The store is not trusted. Nothing of a frame is used before its tag is checked, no size of it
before it is held against the bytes that are really there. ``docs/frame-format.md`` is the
specification.
"""

import hmac
import json
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from blake3 import blake3

from ragpack.codec.artifacts import SCHEMAS, Parts, check, from_parts, to_parts
from ragpack.codec.tensors import Spec, Tensor, read, require_finite, write
from ragpack.digest import canonical_json
from ragpack.errors import CorruptEntry, IncompatibleEntry
from ragpack.keys import CacheKey
from ragpack.protocols import Buffer
from ragpack.types import Artifact, Kind

__all__ = ["MAX_FRAME_BYTES", "decode_frame", "encode_frame", "verify_frame"]

MAX_FRAME_BYTES = 1 << 30
MAX_HEADER_BYTES = 1 << 14
MAGIC = b"\x93RPK"
VERSION = 1
CODEC = "raw"
TAG_BYTES = 32
_PREFIX = struct.Struct("<4sIQ")  # magic, version, header length
_CONTEXT = "ragpack frame tag 2026-11"
_PARALLEL_FROM = 1 << 20
"""Bytes from which hashing on several threads pays for starting them."""
_THREADS = min(4, os.cpu_count() or 1)
"""A number, not ``blake3.AUTO``: its process-wide pool has no threads left after a fork."""


def encode_frame(key: CacheKey, artifact: Artifact, secret: bytes | None = None) -> bytes:
    """The bytes to store for ``artifact``: equal artifacts under equal keys give equal bytes.

    Args:
        key: what the artifact is; the frame can be read with an equal key only.
        artifact: any of the three kinds.
        secret: authenticates the frame; None writes a checksum, which a forger can write too.

    Raises:
        CorruptEntry: whatever :func:`decode_frame` would refuse, with the same reason.
    """
    parts = to_parts(artifact)
    _require_kind(parts.kind, key.kind)
    for name, (dtype, array) in parts.tensors.items():
        require_finite(name, dtype, array)
    header = _header(key, parts)
    pieces: list[Buffer] = [_PREFIX.pack(MAGIC, VERSION, len(header)), header]
    pieces += write(parts.tensors)
    _require_size(sum(map(len, pieces)) + TAG_BYTES)
    return b"".join([*pieces, _tag(pieces, secret)])


def decode_frame(key: CacheKey, data: Buffer, secret: bytes | None = None) -> Artifact:
    """The artifact that was stored under ``key``; its arrays are views of ``data``.

    Raises:
        CorruptEntry: the bytes are damaged or forged; ``reason`` is one of "too large",
            "truncated", "magic", "header length", "tag", "header", "length", "payload",
            "not finite", "text".
        IncompatibleEntry: the bytes are sound and not what was asked for; ``reason`` is one of
            "version", "key", "kind", "codec", "tensors", "dtype", "shape".
    """
    return _decode(key.digest, data, secret, key.kind)


def verify_frame(digest: str, data: Buffer, secret: bytes | None = None) -> None:
    """Check a stored frame of which only the key's digest is known.

    Raises:
        CorruptEntry: as :func:`decode_frame` would.
    """
    _decode(digest, data, secret)


def _decode(
    digest: str, data: Buffer, secret: bytes | None, wanted: Kind | None = None
) -> Artifact:
    header, payload = _open(memoryview(data).cast("B"), secret)
    if header.get("key") != digest:
        raise IncompatibleEntry("key", "the entry belongs to another key")
    kind, layout, specs = _parse(header)
    if wanted is not None:
        _require_kind(kind, wanted)
    check(kind, specs)
    arrays = read(payload, specs)
    tensors = {name: Tensor(spec.dtype, arrays[name]) for name, spec in specs.items()}
    for name, (dtype, array) in tensors.items():
        require_finite(name, dtype, array)
    try:
        return from_parts(kind, tensors, layout)
    except UnicodeDecodeError as error:
        raise CorruptEntry("text", "not UTF-8") from error


def _header(key: CacheKey, parts: Parts) -> bytes:
    """Canonical JSON, padded with spaces so that the payload begins at a whole 8 bytes."""
    text = canonical_json(
        {
            "codec": CODEC,
            "key": key.digest,
            "kind": parts.kind,
            "layout": parts.layout,
            "tensors": {name: tensor.spec for name, tensor in parts.tensors.items()},
        }
    ).encode()
    if len(text) > MAX_HEADER_BYTES - 8:
        raise CorruptEntry("header length", f"{len(text)} bytes")
    return text + b" " * (-len(text) % 8)


def _open(data: memoryview, secret: bytes | None) -> tuple[dict[str, Any], memoryview]:
    """Header and payload of a frame whose caps, magic, version and tag are in order."""
    _require_size(len(data))
    body = data[:-TAG_BYTES]
    magic, version, header_bytes = _PREFIX.unpack_from(body)
    if magic != MAGIC:
        raise CorruptEntry("magic", "not a frame")
    if version != VERSION:
        raise IncompatibleEntry("version", f"frame version {version}, not {VERSION}")
    start = _PREFIX.size + header_bytes
    if header_bytes > MAX_HEADER_BYTES or start > len(body):
        raise CorruptEntry("header length", f"{header_bytes} bytes")
    if not hmac.compare_digest(_tag([body], secret), data[-TAG_BYTES:]):
        raise CorruptEntry("tag", "damaged, forged or written with another secret")
    try:
        header = json.loads(bytes(body[_PREFIX.size : start]))
    except (ValueError, RecursionError) as error:
        raise CorruptEntry("header", "not JSON") from error
    if not isinstance(header, dict):
        raise CorruptEntry("header", "not an object")
    return header, body[start:]


def _parse(header: Mapping[str, Any]) -> tuple[Any, str, dict[str, Spec]]:
    """Kind, layout and tensors of a header, as far as they can be told without the payload."""
    codec, kind, layout, tensors = map(header.get, ("codec", "kind", "layout", "tensors"))
    if codec != CODEC:
        raise IncompatibleEntry("codec", f"{codec!r}")
    if kind not in list(SCHEMAS):
        raise IncompatibleEntry("kind", f"{kind!r}")
    if not isinstance(layout, str) or not isinstance(tensors, dict):
        raise CorruptEntry("header", "no layout or no tensors")
    return kind, layout, {name: _spec(name, value) for name, value in tensors.items()}


def _spec(name: str, value: Any) -> Spec:
    match value:
        case [str(dtype), [*shape]] if all(type(size) is int and size >= 0 for size in shape):
            return Spec(dtype, tuple(shape))
    raise CorruptEntry("header", f"tensor {name!r} has no element type or shape")


def _require_kind(kind: str, wanted: Kind) -> None:
    """A frame holds the kind of artifact that its key names, so a forger cannot swap it."""
    if kind != wanted:
        raise IncompatibleEntry("kind", f"{kind!r}, not {wanted!r}")


def _require_size(size: int) -> None:
    if size > MAX_FRAME_BYTES:
        raise CorruptEntry("too large", f"{size} bytes, at most {MAX_FRAME_BYTES}")
    if size < _PREFIX.size + TAG_BYTES:
        raise CorruptEntry("truncated", f"{size} bytes")


def _tag(pieces: Sequence[Buffer], secret: bytes | None) -> bytes:
    """BLAKE3 of the pieces, keyed with a key derived from ``secret`` where there is one."""
    threads = _THREADS if sum(map(len, pieces)) >= _PARALLEL_FROM else 1
    if secret is None:
        hasher = blake3(max_threads=threads)
    else:
        derived = blake3(secret, derive_key_context=_CONTEXT).digest()
        hasher = blake3(key=derived, max_threads=threads)
    for piece in pieces:
        hasher.update(piece)
    return bytes(hasher.digest())
