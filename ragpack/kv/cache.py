"""A cache layer that is filled in advance and carries its request's plan to the attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from ragpack.kv.plan import Plan

__all__ = ["MARK", "ComposedLayer", "composed_cache"]

MARK = "ragpack_plan"
"""Attribute of the key tensor under which the attention finds the plan and the layer's window."""

_GROWTH = 64


class ComposedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer's keys and values in a buffer with room to grow: a new token copies nothing.

    Never crops to a sliding window: with shared positions an index says nothing about distance, so
    windows are applied by position in the attention.

    Args:
        keys: buffer [rows, kv_heads, capacity, head_dim]; the first ``plan.stored`` are filled.
        values: same.
        plan: positions of the request, shared by its layers.
        window: how many positions a token of this layer sees; None for all.
    """

    def __init__(self, keys: Tensor, values: Tensor, plan: Plan, window: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._buffers, self._plan, self._window = (keys, values), plan, window
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self._expose(plan.stored)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Take in new tokens [rows, kv_heads, new, head_dim]; returns all keys and values."""
        filled, new = self.get_seq_length(), key_states.shape[2]
        first = filled == self._plan.stored
        length = self._plan.length_after_first(new) if first else filled + new
        self._make_room(length)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            if first:
                _place(buffer, states, self._plan.columns_of_first(new))
            else:
                buffer[:, :, filled:length] = states
        keys, values = self._expose(length)
        marked = keys.view_as(keys)  # a tensor of its own, so that the mark ends with it
        setattr(marked, MARK, (self._plan, self._window))
        return marked, values

    def _make_room(self, length: int) -> None:
        capacity = self._buffers[0].shape[2]
        if length > capacity:
            extra = length - capacity + max(_GROWTH, capacity // 4)
            keys, values = (
                torch.cat([part, part.new_empty(*part.shape[:2], extra, part.shape[3])], dim=2)
                for part in self._buffers
            )
            self._buffers = (keys, values)

    def _expose(self, length: int) -> tuple[Tensor, Tensor]:
        keys, values = (part[:, :, :length] for part in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def _place(buffer: Tensor, states: Tensor, columns: Tensor) -> None:
    """Put tokens [rows, heads, n, dim] at ``columns`` [rows, n]."""
    if columns.shape[0] == 1:
        buffer.index_copy_(2, columns[0], states)
    else:
        buffer.scatter_(2, columns[:, None, :, None].expand_as(states), states)


def composed_cache(
    keys: Sequence[Tensor], values: Sequence[Tensor], plan: Plan, windows: Sequence[int | None]
) -> Cache:
    """A cache of composed layers: one buffer of keys, of values and one window for each."""
    parts = zip(keys, values, windows, strict=True)
    return Cache(layers=[ComposedLayer(key, value, plan, width) for key, value, width in parts])
