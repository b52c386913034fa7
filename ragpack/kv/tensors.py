"""Between torch and the arrays of an artifact, on the same memory where it can be."""

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
}


def to_array(part: Tensor, dtype: torch.dtype) -> NDArray[Any]:
    """A contiguous array of ``part`` in ``dtype``; bfloat16 as its 16-bit words."""
    part = part.to("cpu", dtype).contiguous()
    return (part.view(torch.uint16) if dtype == torch.bfloat16 else part).numpy()


def to_tensor(array: NDArray[Any], dtype: str) -> Tensor:
    """A tensor on the memory of ``array``, which must only be read."""
    part = torch.from_numpy(array if array.flags.writeable else _writable_view(array))
    return part.view(torch.bfloat16) if dtype == "bf16" else part


class _Memory:
    """Memory of an array, offered as writable: torch has no read-only tensors and would warn."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._owner = array
        interface = dict(array.__array_interface__)
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}


def _writable_view(array: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(_Memory(array))
