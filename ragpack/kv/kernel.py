"""One softmax over one group of keys, with its log-sum-exp, without repeating KV heads."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["attend"]

_flash_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of one group.

    KV heads are shared by folding them into the batch and giving every query head of a group a
    view of the same memory.

    Args:
        query: [rows, heads, queries, head_dim].
        key: [rows, kv_heads, keys, head_dim]; heads is a multiple of kv_heads.
        value: same as key.
        scale: factor on the logits.
        mask: additive, [rows or 1, 1, queries, keys].
        causal: query i sees keys up to i (queries and keys are the same tokens).
        softcap: logits become ``softcap * tanh(logits / softcap)`` (Gemma-2).

    Returns:
        output [rows, heads, queries, head_dim], and log-sum-exp [rows, heads, queries] in at least
        float32; where a query sees nothing, zeros and minus infinity.
    """
    rows, heads, queries, dim = query.shape
    kv_heads = key.shape[1]
    group = heads // kv_heads
    folded = query.reshape(rows * kv_heads, group, queries, dim)
    keys, values = (part.flatten(0, 1)[:, None].expand(-1, group, -1, -1) for part in (key, value))
    if mask is not None:
        mask = mask.to(query.dtype)
        mask = mask if mask.shape[0] == 1 else mask.repeat_interleave(kv_heads, dim=0)
    if query.device.type == "cpu" and softcap is None:
        out, lse = _flash_cpu(folded, keys, values, 0.0, causal, attn_mask=mask, scale=scale)
        lse = _blind_to_minus_infinity(lse, mask)
    else:
        out, lse = _written_out(
            folded, keys, values, scale, _explicit(mask, causal, folded), softcap
        )
    return out.reshape(query.shape), lse.reshape(rows, heads, queries)


def _blind_to_minus_infinity(lse: Tensor, mask: Tensor | None) -> Tensor:
    """The kernel reports 0 for a query that sees nothing, which would count as one key."""
    if mask is None:
        return lse
    return lse.masked_fill(torch.isneginf(mask.amax(dim=-1)), -torch.inf)


def _explicit(mask: Tensor | None, causal: bool, query: Tensor) -> Tensor | None:
    if not causal:
        return mask
    side = query.shape[2]
    return torch.full((side, side), -torch.inf, device=query.device, dtype=query.dtype).triu_(1)


def _written_out(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None, cap: float | None
) -> tuple[Tensor, Tensor]:
    """The same in plain operations, for devices and logits that the kernel does not know."""
    logits = (query * scale) @ key.transpose(-1, -2)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    if mask is not None:
        logits = logits + mask
    lse = logits.logsumexp(dim=-1)
    weights = (logits - lse[..., None]).exp().nan_to_num_(0.0)
    return weights.to(value.dtype) @ value, lse
