"""Between torch and the arrays of an artifact, on the same memory where it can be.

``i8`` is one scale for each row of head_dim numbers, kept behind them: [..., head_dim + 2] bytes,
the last two of which are the scale as a little-endian float16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["LABELS", "to_array", "to_tensor"]

LABELS = {
    torch.float32: "f32",
    torch.float64: "f64",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.int8: "i8",
}
_SCALE_BYTES = 2


def to_array(part: Tensor, dtype: torch.dtype) -> NDArray[Any]:
    """A contiguous array of ``part`` in ``dtype``; bfloat16 as its 16-bit words."""
    if dtype == torch.int8:
        return _quantised(part.cpu())
    part = part.to("cpu", dtype).contiguous()
    return (part.view(torch.uint16) if dtype == torch.bfloat16 else part).numpy()


def to_tensor(array: NDArray[Any], dtype: str) -> Tensor:
    """The numbers of ``array``, on its own memory unless it is ``i8``; only to be read."""
    part = torch.from_numpy(array if array.flags.writeable else _writable_view(array))
    if dtype == "i8":
        scale = part[..., -_SCALE_BYTES:].contiguous().view(torch.float16)
        return part[..., :-_SCALE_BYTES] * scale.float()
    return part.view(torch.bfloat16) if dtype == "bf16" else part


def _quantised(part: Tensor) -> NDArray[Any]:
    scale = (part.float().abs().amax(dim=-1, keepdim=True) / 127).to(torch.float16)
    scale = scale.clamp(min=torch.finfo(torch.float16).tiny)  # a row of zeros
    numbers = (part / scale.to(part.dtype)).round().clamp(-127, 127).to(torch.int8)
    return torch.cat([numbers, scale.view(torch.int8)], dim=-1).numpy()


class _Memory:
    """Memory of an array, offered as writable: torch has no read-only tensors and would warn."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._owner = array
        interface = dict(array.__array_interface__)
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}


def _writable_view(array: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(_Memory(array))
