"""The payload of a frame: named arrays as one safetensors document, read without a copy.

safetensors' own reader copies every tensor out of the document. Here its header is a pure function
of names, element types and shapes, all of which the frame's header states: the reader builds it
again and compares bytes, so nothing in the payload is ever parsed.
"""

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragpack.errors import CorruptEntry, IncompatibleEntry

__all__ = ["Spec", "Tensor", "read", "require_finite", "tensor", "write"]

_WORDS: dict[str, np.dtype[Any]] = {
    "bf16": np.dtype("<u2"),  # numpy has no bfloat16: held as its 16-bit words
    "f16": np.dtype("<f2"),
    "f32": np.dtype("<f4"),
    "f64": np.dtype("<f8"),
    "i32": np.dtype("<i4"),
    "i64": np.dtype("<i8"),
    "i8": np.dtype("i1"),
    "u8": np.dtype("u1"),
}
"""Element types by label; upper-cased, a label is safetensors' own name of the type."""

_LABELS = {words: label for label, words in _WORDS.items() if label != "bf16"}
_INFINITY = {"bf16": 0x7F80, "f16": 0x7C00, "f32": 0x7F80_0000, "f64": 0x7FF0_0000_0000_0000}


class Spec(NamedTuple):
    """What a tensor is: the label of its element type, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes it takes, in exact integers."""
        return math.prod(self.shape) * _WORDS[self.dtype].itemsize


class Tensor(NamedTuple):
    """A contiguous little-endian array with the label of its element type."""

    dtype: str
    array: NDArray[Any]

    @property
    def spec(self) -> Spec:
        """Label and shape."""
        return Spec(self.dtype, self.array.shape)


def tensor(array: NDArray[Any], label: str | None = None) -> Tensor:
    """``array`` made ready to be written, copied only where its memory order demands it.

    Args:
        array: of any element type that a frame holds.
        label: the element type's label; needed for bf16 alone, whose words numpy calls integers.

    Raises:
        IncompatibleEntry: "dtype", for another element type or one that is not the label's.
    """
    words = array.dtype.newbyteorder("<")
    label = label or _LABELS.get(words)
    if label is None or _WORDS.get(label) != words:
        raise IncompatibleEntry("dtype", f"{array.dtype} elements cannot be stored as {label}")
    return Tensor(label, np.ascontiguousarray(array, dtype=words))


def write(tensors: Mapping[str, Tensor]) -> list[memoryview]:
    """The safetensors document of ``tensors`` in pieces; the arrays are not copied."""
    specs = {name: tensor.spec for name, tensor in tensors.items()}
    arrays = [tensors[name].array for name in _order(specs)]
    head = memoryview(_head(tuple(specs.items())))
    return [head, *(array.reshape(-1).view(np.uint8).data for array in arrays)]


def read(payload: memoryview, specs: Mapping[str, Spec]) -> dict[str, NDArray[Any]]:
    """Views of ``payload``, as writable as it is, one for each of ``specs``.

    Raises:
        CorruptEntry: "length" or "payload", where the document is not the one of ``specs``.
        IncompatibleEntry: "shape", where no array can have it.
    """
    head = _head(tuple(specs.items()))
    if len(payload) != len(head) + sum(spec.nbytes for spec in specs.values()):
        raise CorruptEntry("length", f"the payload has {len(payload)} bytes")
    if payload[: len(head)] != head:
        raise CorruptEntry("payload", "its safetensors header does not match the frame's")
    arrays: dict[str, NDArray[Any]] = {}
    offset = len(head)
    for name in _order(specs):
        label, shape = specs[name]
        try:
            arrays[name] = np.ndarray(shape, _WORDS[label], payload, offset)
        except ValueError as error:  # too many elements beside a zero
            raise IncompatibleEntry("shape", f"{name} cannot be {shape}") from error
        offset += specs[name].nbytes
    return arrays


def require_finite(name: str, dtype: str, array: NDArray[Any]) -> None:
    """Refuse NaN and infinity, in two passes over the words that allocate nothing.

    Without the sign bit, exactly the words from infinity's upwards are not finite: read as signed
    integers they are the largest positive ones, read as unsigned the largest of all.

    Raises:
        CorruptEntry: "not finite".
    """
    infinity = _INFINITY.get(dtype)
    if infinity is None or not array.size:
        return
    width = array.dtype.itemsize
    positive = np.maximum.reduce(array.view(f"<i{width}"), axis=None)
    negative = np.maximum.reduce(array.view(f"<u{width}"), axis=None)
    if positive >= infinity or negative >= infinity | 1 << (8 * width - 1):
        raise CorruptEntry("not finite", f"{name} holds NaN or infinity")


def _order(specs: Mapping[str, Spec]) -> Sequence[str]:
    """Widest elements first, so that each tensor is aligned to its own width."""
    return sorted(specs, key=lambda name: (-_WORDS[specs[name].dtype].itemsize, name))


@lru_cache(maxsize=1024)
def _head(items: tuple[tuple[str, Spec], ...]) -> bytes:
    """Length and JSON of a safetensors document, padded with spaces to whole 8 bytes.

    Cached because shapes recur: half of the time of reading a small frame would go here.
    """
    specs = dict(items)
    entries: dict[str, Any] = {}
    offset = 0
    for name in _order(specs):
        label, shape = specs[name]
        end = offset + specs[name].nbytes
        entries[name] = {"dtype": label.upper(), "shape": shape, "data_offsets": (offset, end)}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
