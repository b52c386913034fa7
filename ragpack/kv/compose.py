"""Stored passages to one cache, in any order.

*parallel* (APE): every passage stays where it was encoded, right behind the prefix, and the query
follows the longest one. *sequential* (kv-reuse): every passage is rotated to the place it has in
the plain prompt, and chosen tokens can be encoded again there, seeing everything before them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ragpack.errors import HandoffError
from ragpack.kv.attention import install
from ragpack.kv.cache import composed_cache
from ragpack.kv.encode import KVEncoder
from ragpack.kv.plan import Plan
from ragpack.kv.rope import rotate_into
from ragpack.kv.tensors import to_tensor
from ragpack.types import KVArtifact

if TYPE_CHECKING:
    from transformers.cache_utils import Cache

__all__ = ["Composed", "Row", "compose_parallel", "compose_sequential"]

ROOM = 64
"""Columns kept free for generated tokens before a buffer has to grow."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a batch.

    Args:
        passages: artifacts in prompt order.
        query_ids: everything after the context, at least one token.
        recompute: tokens to encode again, ascending, counted over the passages' tokens in order.
    """

    passages: Sequence[KVArtifact]
    query_ids: Sequence[int]
    recompute: Sequence[int] = ()

    @property
    def lengths(self) -> list[int]:
        """Tokens of each passage."""
        return [int(artifact.token_ids.shape[0]) for artifact in self.passages]

    @property
    def token_ids(self) -> list[int]:
        """Token ids of all passages, in order."""
        return [token for artifact in self.passages for token in artifact.token_ids.tolist()]


@dataclass(frozen=True, slots=True)
class Composed:
    """A cache and the tokens that are still to be forwarded through it, once.

    Shapes: ``keys`` and ``values`` [layers, rows, kv_heads, capacity, head_dim], the cache's
    buffers; ``input_ids`` and ``position_ids`` [rows, new], where the last token of every row is
    the last of its query.
    """

    cache: Cache
    plan: Plan
    keys: Tensor
    values: Tensor
    input_ids: Tensor
    position_ids: Tensor
    prompt_ids: tuple[tuple[int, ...], ...]
    """Token ids of the plain prompt of each row: prefix, passages, query."""


def compose_parallel(
    encoder: KVEncoder,
    rows: Sequence[Row],
    *,
    temperature: float = 1.0,
    scale: float = 1.0,
) -> Composed:
    """APE's layout: passages side by side, one context group with temperature and scale.

    Raises:
        HandoffError: a row is empty, or stored for another prefix, or longer than the window.
    """
    start = len(encoder.prefix_ids)

    def places(row: Row) -> list[int]:
        return [start] * len(row.passages)

    composed = _compose(encoder, rows, places)
    composed.plan.context = (start, composed.plan.stored)
    composed.plan.temperature, composed.plan.scale = temperature, scale
    return composed


def compose_sequential(
    encoder: KVEncoder, rows: Sequence[Row], before: Composed | None = None
) -> Composed:
    """The plain prompt's layout, with every row's ``recompute`` tokens to be encoded again.

    ``before`` is the same rows' composition with nothing recomputed: its buffers are taken over, so
    that nothing is moved twice, and it must not be used any more.

    Raises:
        HandoffError: a row is empty, or stored for another prefix, or longer than the window.
    """
    start = len(encoder.prefix_ids)

    def places(row: Row) -> list[int]:
        return [start + sum(row.lengths[:i]) for i in range(len(row.passages))]

    return _compose(encoder, rows, places, before)


def _compose(
    encoder: KVEncoder,
    rows: Sequence[Row],
    places: Callable[[Row], list[int]],
    before: Composed | None = None,
) -> Composed:
    for row in rows:
        _check(encoder, row, places(row))
    prefix = len(encoder.prefix_ids)
    stored = prefix + max(sum(row.lengths) for row in rows)
    new = max(len(row.recompute) + len(row.query_ids) for row in rows)
    tail = max(new - len(row.recompute) for row in rows)
    plan = _blank_plan(len(rows), stored, tail, new)
    ids = torch.zeros(len(rows), new, dtype=torch.long)
    for index, row in enumerate(rows):
        _plan_row(plan, index, row, prefix, places(row))
        known = row.token_ids
        again = [known[i] for i in row.recompute]
        chosen = torch.tensor([*again, *row.query_ids], dtype=torch.long)
        ids[index, new - len(chosen) :] = chosen
    if before is None:
        keys, values = _buffers(encoder, rows, places, stored + tail)
    else:
        keys, values = before.keys, before.values
    install(encoder.model)
    device = encoder.model.device
    plan.positions, plan.columns = plan.positions.to(device), plan.columns.to(device)
    return Composed(
        cache=composed_cache(list(keys), list(values), plan, encoder.layout.windows),
        plan=plan,
        keys=keys,
        values=values,
        input_ids=ids.to(device),
        position_ids=plan.query_positions(),
        prompt_ids=tuple((*encoder.prefix_ids, *row.token_ids, *row.query_ids) for row in rows),
    )


def _check(encoder: KVEncoder, row: Row, places: Sequence[int]) -> None:
    if not row.query_ids:
        raise HandoffError("the query has no tokens; a decoder needs at least one to go on from")
    for artifact in row.passages:
        if artifact.layout != encoder.stored_layout:
            raise HandoffError(
                f"KV was stored as {artifact.layout}, this prompt needs {encoder.stored_layout}"
            )
        if artifact.keys.shape[:2] != (encoder.layout.layers, encoder.layout.kv_heads):
            raise HandoffError(
                f"KV of {artifact.keys.shape[0]} layers and {artifact.keys.shape[1]} heads does "
                f"not fit a decoder of {encoder.layout.layers} and {encoder.layout.kv_heads}"
            )
    ends = [place + length for place, length in zip(places, row.lengths, strict=True)]
    longest = max([len(encoder.prefix_ids), *ends]) + len(row.query_ids)
    if longest > encoder.layout.max_positions:
        raise HandoffError(
            f"the prompt has {longest} tokens, the model's window {encoder.layout.max_positions}"
        )


def _blank_plan(rows: int, stored: int, tail: int, new: int) -> Plan:
    """Nothing anywhere; what pads the first forward is kept in the tail's first columns."""
    return Plan(
        positions=torch.full((rows, stored + tail), -1),
        columns=torch.arange(stored, stored + new).repeat(rows, 1),
        stored=stored,
    )


def _plan_row(plan: Plan, index: int, row: Row, prefix: int, places: Sequence[int]) -> None:
    """Write one row's positions and the columns of its new tokens."""
    positions, columns = plan.positions[index], plan.columns[index]
    positions[:prefix] = torch.arange(prefix)
    column = after = prefix
    for place, length in zip(places, row.lengths, strict=True):
        positions[column : column + length] = torch.arange(place, place + length)
        column, after = column + length, max(after, place + length)
    query, again = len(row.query_ids), len(row.recompute)
    positions[len(positions) - query :] = torch.arange(after, after + query)
    columns[len(columns) - query :] = torch.arange(len(positions) - query, len(positions))
    before_query = len(columns) - query
    columns[before_query - again : before_query] = prefix + torch.tensor(
        row.recompute, dtype=torch.long
    )


def _buffers(
    encoder: KVEncoder,
    rows: Sequence[Row],
    places: Callable[[Row], list[int]],
    filled: int,
) -> tuple[Tensor, Tensor]:
    """Keys and values [layers, rows, kv_heads, capacity, head_dim] with every passage in place."""
    layout, model = encoder.layout, encoder.model
    shape = (layout.layers, len(rows), layout.kv_heads, filled + ROOM, layout.head_dim)
    keys, values = (torch.empty(shape, dtype=model.dtype, device=model.device) for _ in range(2))
    prefix = len(encoder.prefix_ids)
    for index, row in enumerate(rows):
        for out, part in zip((keys, values), encoder.prefix, strict=True):
            out[:, index, :, :prefix] = part
            # Columns that nothing fills are masked, but a NaN would come through any mask.
            out[:, index, :, prefix + sum(row.lengths) : filled] = 0
        column = prefix
        for artifact, place, length in zip(row.passages, places(row), row.lengths, strict=True):
            span = slice(column, column + length)
            values[:, index, :, span] = to_tensor(artifact.values, artifact.dtype)
            moved = keys[:, index, :, span]
            _move(moved, to_tensor(artifact.keys, artifact.dtype), place - encoder.start, encoder)
            column += length
    return keys, values


def _move(out: Tensor, keys: Tensor, delta: int, encoder: KVEncoder) -> None:
    """Write ``keys`` [layers, kv_heads, tokens, head_dim] moved by ``delta`` into ``out``."""
    if delta == 0:
        out.copy_(keys)
    elif len(set(map(id, encoder.inv_freq))) == 1:
        rotate_into(out, keys, delta, encoder.inv_freq[0])
    else:
        for layer, inv_freq in enumerate(encoder.inv_freq):
            rotate_into(out[layer], keys[layer], delta, inv_freq)
