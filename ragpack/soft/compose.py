"""Prompts of tokens and soft tokens, and the traps between them and a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.cache_utils import Cache

from ragpack.errors import HandoffError
from ragpack.soft.chunks import NO_TOKEN, places
from ragpack.soft.placed import PlacedChunks

__all__ = ["Batch", "SoftPrompt", "embed", "generate_arguments", "pad_left"]


@dataclass(frozen=True, slots=True, eq=False)
class SoftPrompt:
    """A whole prompt: ``token_ids`` [n] with -1 where a soft token of ``rows`` [m, h] stands."""

    token_ids: list[int]
    rows: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        prefix: Sequence[int],
        passages: Sequence[PlacedChunks | Sequence[int]],
        suffix: Sequence[int],
    ) -> SoftPrompt:
        """The passages, as chunks or as plain tokens, between ``prefix`` and ``suffix``."""
        ids, rows = list(prefix), []
        for passage in passages:
            if isinstance(passage, PlacedChunks):
                ids += _places(passage)
                rows.append(passage.rows)
            else:
                ids += passage
        empty = np.zeros((0, 0), dtype=np.float32)
        return cls([*ids, *suffix], np.concatenate(rows) if rows else empty)

    def embeds(self, table: nn.Module) -> Tensor:
        """What the decoder reads [n, h], with ``table`` for its tokens."""
        device = next(table.parameters()).device
        ids = torch.tensor(self.token_ids, device=device)
        return embed(ids, torch.from_numpy(self.rows).to(device), table)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Prompts of several lengths, padded on the left.

    Shapes: ``embeds`` [b, n, h]; ``mask`` [b, n], 1 where there is something; ``positions`` [b, n].
    """

    embeds: Tensor
    mask: Tensor
    positions: Tensor


def embed(ids: Tensor, rows: Tensor, table: nn.Module) -> Tensor:
    """Embeddings [n, h] of ``ids`` [n]; where they are -1 the ``rows`` [m, h] stand, in order.

    Gradients flow into the rows.

    Raises:
        HandoffError: another number or width of rows than there is room for.
    """
    soft = ids == NO_TOKEN
    embedded: Tensor = table(ids.masked_fill(soft, 0))
    if not soft.any():
        return embedded
    wanted = int(soft.sum()), embedded.shape[1]
    if tuple(rows.shape) != wanted:
        raise HandoffError(f"soft tokens {list(rows.shape)} for a prompt that takes {list(wanted)}")
    return embedded.index_put((soft.nonzero(as_tuple=True)[0],), rows.to(embedded.dtype))


def pad_left(prompts: Sequence[Tensor]) -> Batch:
    """One batch of prompts [n_i, h]; every prompt is read as it would be alone."""
    longest = max(len(prompt) for prompt in prompts)
    embeds = prompts[0].new_zeros(len(prompts), longest, prompts[0].shape[1])
    mask = torch.zeros(len(prompts), longest, dtype=torch.long, device=embeds.device)
    for row, prompt in enumerate(prompts):
        embeds[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    return Batch(embeds, mask, (mask.cumsum(1) - 1).clamp(min=0))


def generate_arguments(batch: Batch, past: Cache | None = None) -> dict[str, Any]:
    """Arguments for transformers' ``generate()``, with ``past`` in front of every prompt.

    With a cache, ``generate()`` takes ``inputs_embeds`` for the whole sequence and cuts off as many
    rows as the cache holds. Given only what is new it drops rows without a word, so rows that are
    never read are put in front.
    """
    arguments: dict[str, Any] = {"inputs_embeds": batch.embeds, "attention_mask": batch.mask}
    if past is None:
        return arguments
    held = past.get_seq_length()
    rows = batch.embeds.new_zeros(len(batch.embeds), held, batch.embeds.shape[2])
    return {
        "inputs_embeds": torch.cat([rows, batch.embeds], dim=1),
        "attention_mask": torch.cat([batch.mask.new_ones(len(rows), held), batch.mask], dim=1),
        "past_key_values": past,
    }


def _places(passage: PlacedChunks) -> list[int]:
    """The passage's tokens, a single -1 for each chunk that is not spelled out."""
    if passage.token_ids is None:
        return [NO_TOKEN] * len(passage.rows)
    return places(passage.token_ids, passage.expanded)
