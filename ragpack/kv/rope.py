"""Moving keys along: rotary positions add up, so a stored key can be rotated to another place.

A key at position p carries the angles ``p * inv_freq``; rotating it by ``delta * inv_freq`` gives
the key at ``p + delta``. Frequencies come from the model's own rotary module, never its cosines and
sines, which on yarn and longrope also carry a factor that must not be applied twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ragpack.errors import UnsupportedModel

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["frequencies", "rotate_into"]

_EXACT = 4  # bytes of an element from which a rotation loses nothing that matters


def frequencies(model: PreTrainedModel) -> tuple[Tensor, ...]:
    """Angle per position of every layer: [rotary_dim / 2] in float64, on the CPU.

    Raises:
        UnsupportedModel: there is no rotary module, or its frequencies depend on the length.
    """
    config = model.config.get_text_config(decoder=True)
    module = getattr(model.base_model, "rotary_emb", None)
    if module is None:
        raise UnsupportedModel(f"{type(model).__name__}: no KV reuse, it has no rotary positions")
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    known = {kind: _of_kind(model, module, kind) for kind in set(kinds)}
    return tuple(known[kind] for kind in kinds)


def _of_kind(model: PreTrainedModel, module: Any, kind: str) -> Tensor:
    """The frequencies of one layer type; Gemma-3 keeps a set for each."""
    own = hasattr(module, f"{kind}_inv_freq")
    prefix = f"{kind}_" if own else ""
    rope_type = module.rope_type[kind] if own else getattr(module, "rope_type", "default")
    if "dynamic" in rope_type:
        raise UnsupportedModel(
            f"{type(model).__name__}: no KV reuse, its rotary frequencies change with the length "
            f"of the prompt (rope_type {rope_type!r})"
        )
    # longrope swaps inv_freq in place for long prompts; the original stays valid below its switch
    name = "original_inv_freq" if rope_type == "longrope" else "inv_freq"
    values: Tensor = getattr(module, prefix + name)
    return values.detach().to("cpu", torch.float64)


def rotate_into(out: Tensor, keys: Tensor, delta: int, inv_freq: Tensor) -> None:
    """Write ``keys`` moved by ``delta`` positions into ``out``.

    Angles are made in float64 and applied once, in at least float32; dimensions beyond the rotary
    ones are copied.

    Args:
        out: [..., tokens, head_dim].
        keys: same shape, any float type.
        delta: positions to move by; may be negative.
        inv_freq: [rotary_dim / 2].
    """
    half = inv_freq.numel()
    angles = inv_freq * delta
    exact = out if out.element_size() >= _EXACT else out.new_empty(out.shape, dtype=torch.float32)
    cos, sin = (part.to(exact) for part in (angles.cos(), angles.sin()))
    keys = keys.to(exact)
    first, second = keys[..., :half], keys[..., half : 2 * half]
    torch.mul(first, cos, out=exact[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=exact[..., half : 2 * half]).addcmul_(first, sin)
    exact[..., 2 * half :] = keys[..., 2 * half :]
    if exact is not out:
        out.copy_(exact)
