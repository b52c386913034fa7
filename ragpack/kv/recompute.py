"""Which of the reused tokens to encode again in full context: the dial between 0 and 1.

A rule scores every token of the passages; the highest are taken. Without an anchor the first
passage is left out as long as others are left: it was encoded behind the same prefix and is exact.

| rule | what it takes | source | costs before the forward |
|---|---|---|---|
| ``first`` | the first tokens of each passage | EPIC (LegoLink), ICML 2025 | nothing |
| ``deviation`` | values that differ most at layer 2 | CacheBlend, EuroSys 2025 | one layer |
| ``attended`` | seams, and what the query looks at | ours | a forward of the query |
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import DynamicCache

from ragpack.errors import ConfigError
from ragpack.kv.compose import Composed, Row
from ragpack.kv.encode import KVEncoder
from ragpack.kv.forward import first_logits

__all__ = ["SELECTIONS", "choose"]

_DEVIATION_LAYER = 1
_PHRASE = 5
_SEAM = 2


def choose(
    selection: str, amount: float, encoder: KVEncoder, row: Row, composed: Composed
) -> tuple[int, ...]:
    """The tokens of ``row`` to encode again, ascending, counted over its passages.

    Args:
        selection: a rule's name, see :data:`SELECTIONS`.
        amount: fraction of all tokens up to 1; above that, tokens of each passage.
        encoder: what made the passages.
        row: the request.
        composed: its sequential composition with nothing recomputed; a rule may forward the query
            through it, after which only its buffers are of use.

    Raises:
        ConfigError: no such rule.
    """
    if selection not in SELECTIONS:
        raise ConfigError(f"selection must be one of {', '.join(SELECTIONS)}, not {selection!r}")
    lengths = row.lengths
    total = sum(lengths)
    exact = 0 if encoder.anchor_ids else sum(lengths[:1])
    wanted = round(amount * total) if amount <= 1 else round(amount) * (len(lengths) - 1)
    if wanted >= total:
        return tuple(range(total))
    count = min(wanted, total - exact)
    if count <= 0:
        return ()
    scores = SELECTIONS[selection](encoder, row, composed)
    best = scores[exact:].topk(count).indices + exact
    return tuple(sorted(best.tolist()))


def _first(encoder: KVEncoder, row: Row, composed: Composed) -> Tensor:
    """Earlier in its passage is higher, the same for all passages."""
    return torch.cat([-torch.arange(length, dtype=torch.float32) for length in row.lengths])


def _deviation(encoder: KVEncoder, row: Row, composed: Composed) -> Tensor:
    """Distance of stored values from those that the plain prompt has at an early layer."""
    probe = _EarlyValues()
    ids = torch.tensor([[*encoder.prefix_ids, *row.token_ids]], device=encoder.model.device)
    with suppress(_EnoughSeen):
        encoder.model.base_model(input_ids=ids, past_key_values=probe, use_cache=True)
    prefix, stored = len(encoder.prefix_ids), composed.plan.stored
    kept = composed.values[_DEVIATION_LAYER][0, :, prefix:stored]
    return (probe.values[0, :, prefix:] - kept).float().pow(2).sum(dim=(0, 2)).cpu()


def _attended(encoder: KVEncoder, row: Row, composed: Composed) -> Tensor:
    """Attention of the query's last token to each token, over heads and the later half of layers.

    Earlier layers look for syntax. The mean over neighbours keeps phrases together, so that an
    answer can be read on from its first token. Every passage's first tokens come before anything
    else: they see another neighbour than those they were encoded behind. Windows and softcaps are
    left out: this only ranks.
    """
    seen: list[Tensor] = []

    def look(query: Tensor, key: Tensor, scale: float) -> None:
        rows, heads, _, dim = query.shape
        last = query[:, :, -1].reshape(rows, key.shape[1], heads // key.shape[1], dim)
        seen.append(
            ((last * scale) @ key.transpose(-1, -2)).float().softmax(-1).mean(dim=(0, 1, 2))
        )

    composed.plan.observe = look
    first_logits(encoder.model, composed)
    prefix, stored = len(encoder.prefix_ids), composed.plan.stored
    late = torch.stack(seen[len(seen) // 2 :]).mean(dim=0)[prefix:stored].cpu()
    scores = F.avg_pool1d(late[None], _PHRASE, 1, _PHRASE // 2, count_include_pad=False)[0]
    for part in torch.split(scores, row.lengths):
        part[:_SEAM] += 1.0  # more than any attention
    return scores


Rule = Callable[[KVEncoder, Row, Composed], Tensor]
SELECTIONS: dict[str, Rule] = {
    "first": _first,
    "deviation": _deviation,
    "attended": _attended,
}
"""Score of every token of the passages, in order, by a rule's name."""


class _EnoughSeen(Exception):
    """Ends a forward whose later layers nobody needs."""


class _EarlyValues(DynamicCache):
    """Keeps the values [rows, kv_heads, tokens, head_dim] of an early layer and stops there."""

    values: Tensor

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Take in one layer.

        Raises:
            _EnoughSeen: at the layer that is wanted.
        """
        if layer_idx == _DEVIATION_LAYER:
            self.values = value_states
            raise _EnoughSeen
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)
