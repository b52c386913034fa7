"""Running a composed cache: one forward for the query, or everything that ``generate()`` needs.

transformers has five traps here, each silent or obscure: positions that default to the cache's
length, a mask as short as the query, repeated positions taken for packed sequences, layers cropped
to a window by index, and a cache that the first forward changes. These functions pass positions,
full-length masks and a fresh cache every time, and refuse a cache that was used before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ragpack.errors import HandoffError
from ragpack.kv.compose import Composed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["first_logits", "generate_inputs", "next_logits"]


def first_logits(model: PreTrainedModel, composed: Composed, keep: int = 1) -> Tensor:
    """Logits [rows, keep, vocabulary] of the last ``keep`` query tokens, in one forward.

    Raises:
        HandoffError: the cache was used before.
    """
    _require_fresh(composed)
    return _forward(model, composed, composed.input_ids, composed.position_ids, keep)


def next_logits(model: PreTrainedModel, composed: Composed, token_ids: Tensor) -> Tensor:
    """Logits [rows, new, vocabulary] after ``token_ids`` [rows, new], which go on from the last.

    Raises:
        HandoffError: the query was not forwarded yet.
    """
    filled = composed.cache.get_seq_length()
    if filled < composed.plan.first_length:
        raise HandoffError("forward the query first: call first_logits")
    start = composed.position_ids[:, -1:] + 1 + filled - composed.plan.first_length
    steps = torch.arange(token_ids.shape[1], device=start.device)
    return _forward(model, composed, token_ids, start + steps, token_ids.shape[1])


def generate_inputs(model: PreTrainedModel, composed: Composed) -> dict[str, Any]:
    """Keyword arguments for ``model.generate()``; its output repeats the prompt, as always.

    Tokens to encode again are forwarded here, since ``generate()`` only ever appends.

    Raises:
        HandoffError: the cache was used before, or the rows' prompts differ in length (generate
            would need padding in the middle of the cache; use ``first_logits``).
    """
    _require_fresh(composed)
    plan, ids, positions = composed.plan, composed.input_ids, composed.position_ids
    prompt = torch.tensor(_of_one_length(composed), device=ids.device)
    if ids.shape[1] > plan.first_length - plan.stored:
        _forward(model, composed, ids, positions, 1)
        composed.cache.crop(-1)  # generate() starts from a token that the cache lacks
        positions = positions[:, -1:]
    return {
        "input_ids": prompt,
        "attention_mask": torch.ones_like(prompt),
        "position_ids": positions,
        "past_key_values": composed.cache,
    }


def _forward(
    model: PreTrainedModel, composed: Composed, ids: Tensor, positions: Tensor, keep: int
) -> Tensor:
    output = model(
        input_ids=ids,
        position_ids=positions,
        past_key_values=composed.cache,
        use_cache=True,
        logits_to_keep=keep,
    )
    logits: Tensor = output.logits
    return logits


def _require_fresh(composed: Composed) -> None:
    if composed.cache.get_seq_length() != composed.plan.stored:
        raise HandoffError("this cache was used before and holds its tokens; compose a new one")


def _of_one_length(composed: Composed) -> list[tuple[int, ...]]:
    lengths = {len(prompt) for prompt in composed.prompt_ids}
    if len(lengths) > 1:
        raise HandoffError("generate() needs prompts of one length; decode these row by row")
    return list(composed.prompt_ids)
