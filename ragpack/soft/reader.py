"""A decoder that reads contexts, as soft tokens or spelled out, and how well it goes on from them.

Shared by training, which follows the loss down, and by indexing, which stores it beside each chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from ragpack.models.prompt_tokens import PromptTokenizer
from ragpack.soft.chunks import NO_TOKEN, sizes, tokens_of
from ragpack.soft.compose import embed, pad_left

__all__ = ["Reading", "SoftReader"]

_REPEAT = "Repeat the context."
_BATCH = 16


@dataclass(frozen=True, slots=True)
class Reading:
    """A context, the tokens ``between`` it and the ``target``, and the target to be told.

    The context is token ids, -1 where a soft token stands.
    """

    context: Sequence[int]
    between: Sequence[int]
    target: Sequence[int]


class SoftReader:
    """Reads behind the prompt's own beginning, which goes through the decoder only once.

    Args:
        model: the decoder.
        prompts: its prompts.
    """

    def __init__(self, model: PreTrainedModel, prompts: PromptTokenizer) -> None:
        self.model = model
        self.repeat = prompts.after_separator(_REPEAT)
        self._table = model.get_input_embeddings()
        *self._first, self._last = prompts.prompt("x", "").prefix
        self.prefix_tokens = len(self._first) + 1
        self.begin()

    def begin(self) -> None:
        """Read the prompt's own beginning; to be done again when the decoder has changed."""
        first = torch.tensor([self._first], device=self.model.device)
        with torch.no_grad():
            begun = self.model(first, use_cache=True)
        self._prefix = [(layer.keys, layer.values) for layer in begun.past_key_values.layers]

    def logits(self, readings: Sequence[Reading], rows: Sequence[Tensor] | None = None) -> Tensor:
        """Logits [targets of all readings, vocabulary], each of its target's place.

        Args:
            readings: a batch.
            rows: the soft tokens [n, h] of each context; None where there are none.
        """
        prompts = [
            self._prompt(reading, None if rows is None else rows[place])
            for place, reading in enumerate(readings)
        ]
        batch = pad_left(prompts)
        seen = batch.mask.new_ones(len(readings), self.prefix_tokens - 1)
        longest = max(len(reading.target) for reading in readings)
        found = self.model(
            inputs_embeds=batch.embeds,
            attention_mask=torch.cat([seen, batch.mask], dim=1),
            position_ids=batch.positions + self.prefix_tokens - 1,
            past_key_values=self._cache(len(readings)),
            logits_to_keep=longest,
        ).logits
        ends = [found[row, longest - len(each.target) :] for row, each in enumerate(readings)]
        return torch.cat(ends).float()

    @torch.inference_mode()
    def perplexities(self, token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Mean loss in nats of each chunk's tokens [n] behind everything that stands before it."""
        target = tokens_of(token_ids)
        if not target:
            return np.zeros(len(token_ids), dtype=np.float32)
        losses = self._losses([Reading((), (), target)])
        return _means(losses, sizes(token_ids))

    @torch.inference_mode()
    def reconstructions(self, token_ids: NDArray[np.int32], rows: Tensor) -> NDArray[np.float32]:
        """Mean loss in nats of telling each chunk's tokens [n] from its soft token [n, h]."""
        parts = [np.zeros(0, dtype=np.float32)]
        for start in range(0, len(token_ids), _BATCH):
            some = token_ids[start : start + _BATCH]
            readings = [Reading([NO_TOKEN], self.repeat, tokens_of(row)) for row in some]
            losses = self._losses(readings, list(rows[start : start + _BATCH].unsqueeze(1)))
            parts.append(_means(losses, sizes(some)))
        return np.concatenate(parts)

    def _losses(
        self, readings: Sequence[Reading], rows: Sequence[Tensor] | None = None
    ) -> NDArray[np.float32]:
        """The loss of every target token of all readings."""
        logits = self.logits(readings, rows)
        targets = [token for reading in readings for token in reading.target]
        wanted = torch.tensor(targets, device=logits.device)
        losses: NDArray[np.float32] = cross_entropy(logits, wanted, reduction="none").cpu().numpy()
        return losses

    def _prompt(self, reading: Reading, rows: Tensor | None) -> Tensor:
        """What stands behind the prefix but for its last token, up to the last target."""
        ids = [self._last, *reading.context, *reading.between, *reading.target[:-1]]
        device = self.model.device
        none = torch.zeros(0, 0, device=device)
        return embed(torch.tensor(ids, device=device), none if rows is None else rows, self._table)

    def _cache(self, batch: int) -> DynamicCache:
        """The prefix once for each prompt of a batch."""
        cache = DynamicCache(config=self.model.config)
        for layer, (keys, values) in enumerate(self._prefix):
            shape = batch, -1, -1, -1
            cache.update(keys.expand(shape), values.expand(shape), layer)
        return cache


def _means(losses: NDArray[np.float32], counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The mean of each run of ``losses`` whose lengths are ``counts``."""
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    means: NDArray[np.float32] = (np.add.reduceat(losses, starts) / counts).astype(np.float32)
    return means
