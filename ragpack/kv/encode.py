"""Passages to KV: each encoded alone behind a shared prefix, so that its neighbours do not matter.

The prefix (the part of the prompt before the context) matters more than any other setting: it keeps
every passage from becoming its own attention sink (Yang et al. 2025, section 4.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from ragpack.errors import CompressionError
from ragpack.kv.layout import KVLayout
from ragpack.kv.rope import frequencies
from ragpack.kv.tensors import LABELS, to_array
from ragpack.models.batches import equal_batches, filled, token_batches
from ragpack.types import KVArtifact

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["KVEncoder"]

_BATCH_TOKENS = 2048


class KVEncoder:
    """Encodes passages with one decoder behind one prefix.

    Args:
        model: the decoder; its cache must be plain (see ``KVLayout``).
        prefix_ids: token ids of the shared prefix, at least one, beginning as a prompt begins.
        dtype: what keys and values are stored in.
        anchor_ids: tokens between the prefix and a passage while it is encoded; not kept.

    Raises:
        UnsupportedModel: the model's KV cannot be reused.
        CompressionError: the prefix is empty.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prefix_ids: Sequence[int],
        dtype: torch.dtype = torch.float32,
        anchor_ids: Sequence[int] = (),
    ) -> None:
        if not prefix_ids:
            raise CompressionError("the shared prefix is empty: begin it as a prompt begins")
        self.model = model
        self.layout = KVLayout.of(model)
        self.inv_freq = frequencies(model)
        self.prefix_ids = tuple(prefix_ids)
        self.anchor_ids = tuple(anchor_ids)
        self._dtype = dtype

    @property
    def start(self) -> int:
        """Position of a passage's first token while it is encoded."""
        return len(self.prefix_ids) + len(self.anchor_ids)

    @property
    def stored_layout(self) -> str:
        """How the artifacts' keys stand: rotated for positions from :attr:`start` on."""
        return f"post-rope@{self.start}"

    @property
    def room(self) -> int:
        """Tokens of a passage that fit into the model's window."""
        return self.layout.max_positions - self.start

    @cached_property
    def prefix(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the prefix, each [layers, kv_heads, tokens, head_dim]."""
        keys, values = self.before
        return keys[:, :, : len(self.prefix_ids)], values[:, :, : len(self.prefix_ids)]

    @cached_property
    def before(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all that stands in front of a passage: prefix and anchor."""
        with torch.inference_mode():
            cache = DynamicCache()
            self._forward(torch.tensor([[*self.prefix_ids, *self.anchor_ids]]), cache, start=0)
        keys, values = _stacked(cache)
        return keys[:, 0], values[:, 0]

    def encode(self, passages: Sequence[Sequence[int]]) -> list[KVArtifact]:
        """One artifact for each passage's token ids, in order; an empty one has no tokens.

        Raises:
            CompressionError: a passage does not fit into the model's window.
        """
        longest = max(map(len, passages), default=0)
        if longest > self.room:
            raise CompressionError(f"{longest} tokens in a passage, room for {self.room}")
        made: dict[int, KVArtifact] = {}
        for batch in self._batches(list(map(len, passages))):
            made.update(zip(batch, self._encode([passages[i] for i in batch]), strict=True))
        return [made[i] for i in range(len(passages))]

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """On a CPU of equal lengths, so that the KV's bits do not depend on what is beside it."""
        split = equal_batches if self.model.device.type == "cpu" else token_batches
        return split(lengths, _BATCH_TOKENS)

    def _encode(self, passages: Sequence[Sequence[int]]) -> Iterator[KVArtifact]:
        """A batch of similar lengths, padded on the right where nothing looks."""
        width = max(map(len, passages))
        if width == 0:
            keys, values = (part[:, :, :0] for part in self.prefix)
            yield from (self._artifact(keys, values, ()) for _ in passages)
            return
        rows = filled(passages)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        for row, passage in enumerate(rows):
            ids[row, : len(passage)] = torch.tensor(passage, dtype=torch.long)
        with torch.inference_mode():
            cache = _expanded(self.before, len(rows))
            self._forward(ids, cache, self.start)
        keys, values = _stacked(cache, self.start)
        for row, passage in enumerate(passages):
            span = slice(len(passage))
            yield self._artifact(keys[:, row, :, span], values[:, row, :, span], passage)

    def _forward(self, ids: Tensor, cache: DynamicCache, start: int) -> None:
        positions = torch.arange(start, start + ids.shape[1]).expand(ids.shape)
        device = self.model.device
        self.model.base_model(  # the layers alone: no logits are needed
            input_ids=ids.to(device),
            position_ids=positions.to(device),
            past_key_values=cache,
            use_cache=True,
        )

    def _artifact(self, keys: Tensor, values: Tensor, ids: Sequence[int]) -> KVArtifact:
        return KVArtifact(
            keys=to_array(keys, self._dtype),
            values=to_array(values, self._dtype),
            token_ids=np.array(ids, np.int32),
            layout=self.stored_layout,
            dtype=LABELS[self._dtype],
        )


def _stacked(cache: DynamicCache, start: int = 0) -> tuple[Tensor, Tensor]:
    """Keys and values from ``start`` on, each [layers, rows, kv_heads, tokens, head_dim]."""
    keys, values, _ = zip(*cache, strict=True)
    return (
        torch.stack([layer[..., start:, :] for layer in keys]),
        torch.stack([layer[..., start:, :] for layer in values]),
    )


def _expanded(prefix: tuple[Tensor, Tensor], rows: int) -> DynamicCache:
    """A cache that holds the prefix in every row; its layers never crop to a window."""
    keys, values = (part[:, None].expand(-1, rows, -1, -1, -1) for part in prefix)
    return DynamicCache(list(zip(keys, values, strict=True)))
