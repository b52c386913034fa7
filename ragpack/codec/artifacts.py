"""Artifacts as named tensors and a few words, and back.

What each kind may hold is written down as data (:data:`SCHEMAS`), so that writing and reading
check the same rules.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragpack.codec.tensors import Spec, Tensor, tensor
from ragpack.errors import IncompatibleEntry
from ragpack.text import utf8
from ragpack.types import Artifact, EmbedsArtifact, Kind, KVArtifact, Span, TextArtifact

__all__ = ["Parts", "check", "from_parts", "to_parts"]

_REAL = frozenset({"bf16", "f16", "f32", "i8"})


class _Rule(NamedTuple):
    """What a tensor may be; equal letters in ``dims`` are equal sizes within an artifact."""

    dims: tuple[str | int, ...]
    dtypes: frozenset[str]
    required: bool = False


_SPANS = _Rule(("n", 2), frozenset({"i64"}))
SCHEMAS: dict[Kind, dict[str, _Rule]] = {
    "text": {
        "spans": _SPANS._replace(required=True),
        "scores": _Rule(("n",), frozenset({"f64"})),
        "text": _Rule(("bytes",), frozenset({"u8"})),
    },
    "embeds": {
        "vectors": _Rule(("n", "d"), _REAL - {"bf16"}, required=True),
        "spans": _SPANS,
        "token_ids": _Rule(("n", "k"), frozenset({"i32"})),
        "losses": _Rule(("n",), frozenset({"f32"})),
    },
    "kv": {
        "keys": _Rule(("layers", "kv_heads", "tokens", "head_dim"), _REAL, required=True),
        "values": _Rule(("layers", "kv_heads", "tokens", "head_dim"), _REAL, required=True),
        "token_ids": _Rule(("tokens",), frozenset({"i32"}), required=True),
    },
}


class Parts(NamedTuple):
    """An artifact taken apart; ``layout`` is empty for every kind but KV."""

    kind: Kind
    tensors: dict[str, Tensor]
    layout: str = ""


def to_parts(artifact: Artifact) -> Parts:
    """Take an artifact apart; what is None, or empty and optional, is left out.

    Raises:
        IncompatibleEntry: "dtype", "shape" or "tensors".
    """
    match artifact:
        case TextArtifact():
            parts = Parts("text", _text_tensors(artifact))
        case EmbedsArtifact():
            parts = Parts("embeds", _embeds_tensors(artifact))
        case KVArtifact():
            parts = Parts("kv", _kv_tensors(artifact), artifact.layout)
    check(parts.kind, {name: tensor.spec for name, tensor in parts.tensors.items()})
    return parts


def from_parts(kind: Kind, tensors: Mapping[str, Tensor], layout: str) -> Artifact:
    """Put an artifact together from tensors that :func:`check` has passed."""
    arrays = {name: tensor.array for name, tensor in tensors.items()}
    if kind == "text":
        text = arrays.get("text")
        return TextArtifact(
            spans=_spans_of(arrays),
            scores=tuple(arrays["scores"].tolist()) if "scores" in arrays else (),
            text=None if text is None else text.tobytes().decode("utf-8", "surrogatepass"),
        )
    if kind == "embeds":
        spans = _spans_of(arrays)
        return EmbedsArtifact(
            arrays["vectors"], spans, arrays.get("token_ids"), arrays.get("losses")
        )
    dtype = tensors["keys"].dtype
    return KVArtifact(arrays["keys"], arrays["values"], arrays["token_ids"], layout, dtype)


def check(kind: Kind, specs: Mapping[str, Spec]) -> None:
    """Hold ``specs`` against the schema of ``kind``.

    Raises:
        IncompatibleEntry: "tensors" (one unknown or missing), "dtype" or "shape".
    """
    schema = SCHEMAS[kind]
    needed = {name for name, rule in schema.items() if rule.required}
    if not needed <= specs.keys() <= schema.keys():
        raise IncompatibleEntry("tensors", f"{sorted(specs)} do not make a {kind} artifact")
    sizes: dict[str | int, int] = {2: 2}  # a size fixed by the schema agrees with itself alone
    for name, (dtype, shape) in specs.items():
        rule = schema[name]
        if dtype not in rule.dtypes:
            raise IncompatibleEntry("dtype", f"{name} cannot be {dtype}")
        agreed = len(shape) == len(rule.dims) and all(
            sizes.setdefault(dim, size) == size for dim, size in zip(rule.dims, shape, strict=True)
        )
        if not agreed:
            raise IncompatibleEntry("shape", f"{name} cannot be {list(shape)}")
    if kind == "kv" and specs["keys"].dtype != specs["values"].dtype:
        raise IncompatibleEntry("dtype", "keys and values differ")


def _text_tensors(artifact: TextArtifact) -> dict[str, Tensor]:
    tensors = {"spans": _span_tensor(artifact.spans)}
    if artifact.scores:
        tensors["scores"] = tensor(np.array(artifact.scores, np.float64))
    if artifact.text is not None:
        tensors["text"] = tensor(np.frombuffer(utf8(artifact.text), np.uint8))
    return tensors


def _embeds_tensors(artifact: EmbedsArtifact) -> dict[str, Tensor]:
    tensors = {"vectors": tensor(artifact.vectors)}
    if artifact.spans:
        tensors["spans"] = _span_tensor(artifact.spans)
    if artifact.token_ids is not None:
        tensors["token_ids"] = tensor(artifact.token_ids)
    if artifact.losses is not None:
        tensors["losses"] = tensor(artifact.losses)
    return tensors


def _kv_tensors(artifact: KVArtifact) -> dict[str, Tensor]:
    return {
        "keys": tensor(artifact.keys, artifact.dtype),
        "values": tensor(artifact.values, artifact.dtype),
        "token_ids": tensor(artifact.token_ids),
    }


def _span_tensor(spans: tuple[Span, ...]) -> Tensor:
    return tensor(np.array(spans, np.int64).reshape(-1, 2))


def _spans_of(arrays: Mapping[str, NDArray[Any]]) -> tuple[Span, ...]:
    if "spans" not in arrays:
        return ()
    return tuple((start, end) for start, end in arrays["spans"].tolist())
