"""The probability that a causal model answers a prompt with "Yes", for prompts of one beginning."""

import logging
from collections.abc import Sequence
from itertools import takewhile
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

__all__ = ["YesNo"]

logger = logging.getLogger(__name__)

_LEAST_MASS = 0.5


class YesNo:
    """P(Yes) = softmax over the logits of two tokens at the prompt's last position.

    Args:
        model: in evaluation mode.
        yes: token id of "Yes".
        no: token id of "No".
        batch: prompts in one forward pass.
    """

    def __init__(self, model: PreTrainedModel, yes: int, no: int, batch: int) -> None:
        self._model, self._batch = model, batch
        self._answers = torch.tensor([yes, no], device=model.device)

    def probabilities(self, prompts: Sequence[list[int]]) -> list[float]:
        """P(Yes) after each prompt.

        What all prompts begin with is encoded once and its keys and values are shared, so that n
        prompts over a context of L tokens cost O(L + n) tokens instead of O(n L).

        Args:
            prompts: token ids.
        """
        if not prompts:
            return []
        shared = _common_start(prompts)
        with torch.inference_mode():
            prefix = self._prefix(shared)
            found = [
                self._rows(prefix, [ids[len(shared) :] for ids in prompts[at : at + self._batch]])
                for at in range(0, len(prompts), self._batch)
            ]
        values: list[float] = torch.cat(found).tolist()
        return values

    def _prefix(self, ids: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Keys and values [1, kv_heads, len(ids), head_dim] of every layer."""
        if not ids:
            return []
        cache = DynamicCache()
        tokens = torch.tensor([ids], device=self._model.device)
        self._model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        layers = [cast(DynamicLayer, layer) for layer in cache.layers]
        return [(cast(Tensor, layer.keys), cast(Tensor, layer.values)) for layer in layers]

    def _rows(self, prefix: Sequence[tuple[Tensor, Tensor]], rows: Sequence[list[int]]) -> Tensor:
        """P(Yes) [len(rows)]; rows are padded on the left, so that all end in one column."""
        held = prefix[0][0].shape[-2] if prefix else 0
        widest = max(map(len, rows))
        gaps = torch.tensor([widest - len(row) for row in rows]).unsqueeze(1)
        ids = torch.tensor([[0] * (widest - len(row)) + row for row in rows])
        columns = torch.arange(widest)
        mask = torch.cat([torch.ones(len(rows), held), (columns >= gaps).float()], dim=1).long()
        places = held + (columns - gaps).clamp(min=0)
        logits = self._model(
            input_ids=ids.to(self._model.device),
            attention_mask=mask.to(self._model.device),
            position_ids=places.to(self._model.device),
            past_key_values=_expanded(prefix, len(rows)),
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return self._yes(logits.float())

    def _yes(self, logits: Tensor) -> Tensor:
        """P(Yes) [n] from the last position's ``logits`` [n, vocabulary]."""
        answers = logits[:, self._answers]
        mass = (answers.logsumexp(-1) - logits.logsumexp(-1)).exp()
        if bool((mass < _LEAST_MASS).any()):
            logger.warning(
                'the model gives "Yes" and "No" only %.0f %% of its probability: it may be the '
                "wrong model for this prompt",
                100 * mass.min().item(),
            )
        return answers.softmax(-1)[:, 0].cpu()


def _common_start(prompts: Sequence[list[int]]) -> list[int]:
    """What all ``prompts`` begin with, short of the last token of any."""
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False))
    return [column[0] for column in columns][: min(map(len, prompts)) - 1]


def _expanded(prefix: Sequence[tuple[Tensor, Tensor]], rows: int) -> DynamicCache:
    """A cache of ``rows`` equal rows; the tensors are shared, not copied."""
    wide = [tuple(part.expand(rows, -1, -1, -1) for part in layer) for layer in prefix]
    return DynamicCache(wide) if wide else DynamicCache()
