"""Runs texts of many lengths through a BERT at once, with nothing padded.

A matrix product reads all of a layer's weights, for one text as for thirty. So the tokens of a
batch stand in one row, and only attention, where a text must not see its neighbours, is computed
apart, for the texts of one length together. A product's result for a token does not depend on the
others beside it, so a text's states have the same bits as in a run of its own: on a CPU, as long
as a run is :func:`~ragpack.models.batches.filled`.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

__all__ = ["allow_packing", "packed_states"]

_NAME = "ragpack_packed"
_ABSOLUTE = ("bert",)
"""Architectures whose layers learn of positions by ``position_ids``, counted from 0, alone."""

Groups = Sequence[tuple[int, int]]
"""Rows and length of each run of texts of one length."""


def allow_packing(model: PreTrainedModel) -> bool:
    """Prepare ``model`` for :func:`packed_states`; False where its architecture does not allow it.

    Other uses of the model stay as they are, with PyTorch's own attention.
    """
    if model.config.model_type not in _ABSOLUTE:
        return False
    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    model.set_attn_implementation(_NAME)
    return bool(model.config._attn_implementation == _NAME)


def packed_states(model: PreTrainedModel, texts: Sequence[Sequence[int]]) -> list[Tensor]:
    """The last hidden states [rows, length, d] of each run of neighbours of one length, in order.

    Args:
        model: a model that :func:`allow_packing` has prepared.
        texts: the token ids of each text; those of one length should be neighbours.
    """
    groups = [(len(list(rows)), length) for length, rows in groupby(map(len, texts))]
    states = model(
        input_ids=torch.tensor([[token for text in texts for token in text]]),
        position_ids=torch.tensor([[place for text in texts for place in range(len(text))]]),
        groups=groups,
    ).last_hidden_state[0]
    parts = torch.split(states, [rows * length for rows, length in groups])
    return [part.view(*group, -1) for part, group in zip(parts, groups, strict=True)]


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    groups: Groups | None = None,
    **settings: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention [1, T, heads, width] of ``query``, ``key`` and ``value`` [1, heads, T, width]."""
    if groups is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    stacked = torch.cat((query, key, value)).transpose(1, 2).contiguous()
    parts = torch.split(stacked, [rows * length for rows, length in groups], dim=1)
    seen = [
        _within(part, group, settings["scaling"]) for part, group in zip(parts, groups, strict=True)
    ]
    return torch.cat(seen)[None], None


def _within(stacked: Tensor, group: tuple[int, int], scale: float | None) -> Tensor:
    """Attention [T', heads, width] of texts to themselves, of ``stacked`` [3, T', heads, width].

    The order in memory is that of a run of its own, which some kernels round by.
    """
    _, _, heads, width = stacked.shape
    query, key, value = stacked.view(3, *group, heads, width).transpose(2, 3)
    states = scaled_dot_product_attention(query, key, value, scale=scale)
    return states.transpose(1, 2).flatten(0, 1)
