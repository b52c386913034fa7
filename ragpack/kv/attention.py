"""Attention over a composed cache: by position, in groups, merged by their log-sum-exp.

Registered with transformers under the name ``ragpack``. The keys that reach it carry the request's
plan (see ``cache``); keys without one belong to an ordinary forward and are treated as such. So one
model object serves plain prompts and composed caches at the same time.

APE (Yang et al. 2025, equation 5 and appendix C.4): with contexts in one group c and everything
else in o, ``out = w_c · softmax(q·k/(√d·T)) V_c + w_o · softmax(q·k/√d) V_o`` and
``w = softmax([S·T·lse_c, lse_o])``. Log-sum-exps stay in float32: in bfloat16 they are off by up to
an eighth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ragpack.errors import UnsupportedModel
from ragpack.kv.cache import MARK
from ragpack.kv.kernel import attend
from ragpack.kv.plan import Band, Plan, Segment

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["NAME", "install"]

NAME = "ragpack"


def install(model: PreTrainedModel) -> None:
    """Let ``model`` read composed caches; plain prompts give what they gave before.

    Raises:
        UnsupportedModel: the model's attention cannot be replaced.
    """
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    if model.config._attn_implementation != NAME:
        model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise UnsupportedModel(f"{type(model).__name__}: its attention cannot be replaced")


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_ids: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention output [rows, queries, heads, head_dim] in the form transformers asks for."""
    mark: tuple[Plan, int | None] | None = getattr(key, MARK, None)
    if mark is None and softcap is None and s_aux is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if mark is None:
        segments, temperature, power = [_plain(query, key, attention_mask)], 1.0, 1.0
    else:
        plan, window = mark
        if position_ids is not None:
            plan.require_positions(position_ids, key.shape[2])
        segments = plan.segments(key.shape[2], query.shape[2], window)
        temperature, power = plan.temperature, plan.scale
        if plan.observe is not None:
            plan.observe(query, key, scale)
    outputs, masses = [], []
    for segment in segments:
        heat = temperature if segment.context else 1.0
        out, lse = _banded(query, key, value, segment.bands, scale / heat, softcap)
        outputs.append(out)
        masses.append(lse * (power * heat) if segment.context else lse)
    return _merge(outputs, masses, s_aux).transpose(1, 2).contiguous(), None


def _banded(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bands: Sequence[Band],
    scale: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """One group, each band of queries over its own columns; see :func:`ragpack.kv.kernel.attend`.

    Tokens that are encoded again stand far apart: without the cut, half the work would be masked.
    """
    made = [
        attend(
            query[:, :, band.first : band.last],
            key[:, :, band.start : band.end],
            value[:, :, band.start : band.end],
            scale,
            mask=band.mask,
            causal=band.causal,
            softcap=softcap,
        )
        for band in bands
    ]
    if len(made) == 1:
        return made[0]
    outputs, masses = zip(*made, strict=True)
    return torch.cat(outputs, dim=2), torch.cat(masses, dim=2)


def _plain(query: Tensor, key: Tensor, mask: Tensor | None) -> Segment:
    """An ordinary forward with softcap or sinks, which PyTorch's own attention does not know.

    No mask means causal, unless there is one query.
    """
    if mask is not None and mask.dtype == torch.bool:
        additive = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
        mask = additive.masked_fill_(~mask, -torch.inf)
    causal = mask is None and query.shape[2] > 1
    return Segment([Band(0, query.shape[2], 0, key.shape[2], mask, causal)], context=False)


def _merge(outputs: list[Tensor], masses: list[Tensor], sinks: Tensor | None) -> Tensor:
    """Weigh group outputs [rows, heads, queries, dim] by log masses [rows, heads, queries].

    A sink is one more logit per head without a value; it belongs to the group of the prefix.
    """
    if len(outputs) == 1 and sinks is None:
        return outputs[0]
    if sinks is not None:
        masses = [*masses, sinks.to(masses[0])[None, :, None].expand_as(masses[0])]
    weights = torch.stack(masses).softmax(dim=0).nan_to_num_(0.0)  # padding sees nothing at all
    merged = outputs[0] * weights[0, ..., None].to(outputs[0].dtype)
    for out, weight in zip(outputs[1:], weights[1:], strict=False):
        merged.addcmul_(out, weight[..., None].to(out.dtype))
    return merged
