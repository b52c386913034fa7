"""Where every token of a request stands: the one description that masks are made from.

A composed cache has *columns*: the shared prefix, the passages, then a tail that grows with every
new token. Index and position differ (parallel passages share positions, rows are padded), so
visibility is decided by position alone. A plan belongs to one request and travels in its cache
layers; nothing is global, so requests run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ragpack.errors import HandoffError

__all__ = ["Band", "Observer", "Plan", "Segment"]

Observer = Callable[[Tensor, Tensor, float], None]
"""Sees each layer's queries [rows, heads, new, dim], all keys [rows, kv_heads, n, dim], and the
factor on the logits."""

_HOLE = -1


_BAND = 64
"""Queries that share a cut of the columns: fewer cut closer, more keep the kernel busier."""


class Band(NamedTuple):
    """Queries ``[first, last)`` and the columns ``[start, end)`` outside of which they see none.

    ``mask`` is additive, [rows, 1, last - first, end - start], or None where every query sees all
    of them; ``causal`` says that queries and columns are the same tokens in order.
    """

    first: int
    last: int
    start: int
    end: int
    mask: Tensor | None = None
    causal: bool = False


class Segment(NamedTuple):
    """Columns that are attended together, in bands that cover all queries in order.

    ``context`` marks the group on which APE's temperature and scale act.
    """

    bands: Sequence[Band]
    context: bool


@dataclass(slots=True)
class Plan:
    """Positions of a request.

    Args:
        positions: [rows, columns after the first forward], -1 where a row has nothing.
        columns: [rows, tokens of the first forward], the column that each of them fills; the
            tokens encoded again come first, at the columns they had, the query follows.
        stored: number of columns filled before the first forward.
        context: column range of APE's context group; empty otherwise.
        temperature: T of APE, divides the context's logits.
        scale: S of APE, a power on the context's share of the softmax.
        observe: called by every layer's attention, to see what the query looks at.
    """

    positions: Tensor
    columns: Tensor
    stored: int
    context: tuple[int, int] = (0, 0)
    temperature: float = 1.0
    scale: float = 1.0
    observe: Observer | None = None
    _checked: int = -1
    _seen: dict[int | None, tuple[int, int, list[Segment]]] = field(
        default_factory=dict, repr=False
    )

    @property
    def first_length(self) -> int:
        """Columns filled after the first forward."""
        return self.positions.shape[1]

    def columns_of_first(self, new: int) -> Tensor:
        """Columns [rows, new] that the first forward fills; what it was not planned for goes on."""
        extra = torch.arange(new - self.columns.shape[1], device=self.columns.device)
        further = (self.first_length + extra).expand(self.columns.shape[0], -1)
        return torch.cat([self.columns, further], dim=1)

    def length_after_first(self, new: int) -> int:
        """Columns filled once the first forward has brought ``new`` tokens."""
        return self.first_length + new - self.columns.shape[1]

    def query_positions(self) -> Tensor:
        """Positions [rows, tokens] of the first forward; 0 for padding."""
        return self.positions.gather(1, self.columns).clamp(min=0)

    def require_positions(self, given: Tensor, length: int) -> None:
        """Check the positions that the caller rotated by, once for each forward.

        Raises:
            HandoffError: they are not the plan's; every logit would be wrong without a word.
        """
        if self._checked == length:
            return
        keys = self._positions_to(length)
        asked = self._asked(keys, given.shape[1])
        if not bool(((asked == given) | (asked == _HOLE)).all()):
            raise HandoffError(
                f"position_ids {given.tolist()} do not fit the composed cache, which needs "
                f"{asked.tolist()}: pass the position_ids that came with it"
            )
        self._checked = length

    def segments(self, length: int, queries: int, window: int | None) -> list[Segment]:
        """How the last ``queries`` tokens see the first ``length`` columns, in a layer's window."""
        known = self._seen.get(window)
        if known is None or known[:2] != (length, queries):  # layers of a forward share the masks
            known = (length, queries, self._segments(length, queries, window))
            self._seen[window] = known
        return known[2]

    def _segments(self, length: int, queries: int, window: int | None) -> list[Segment]:
        keys = self._positions_to(length)
        asked = self._asked(keys, queries)
        start, end = self.context
        bounds = [0, start, end, self.stored, length] if end > start else [0, self.stored, length]
        if queries > length - self.stored:  # some queries stand among the stored columns
            bounds = [0, length]
        pairs = [(a, b) for a, b in pairwise(bounds) if b > a]
        return [self._segment(keys, asked, a, b, window) for a, b in pairs]

    def _positions_to(self, length: int) -> Tensor:
        """Positions [rows, length]; new tokens count on from the last one."""
        known = self.positions[:, :length]
        further = torch.arange(1, length - known.shape[1] + 1, device=known.device)
        return torch.cat([known, known[:, -1:] + further], dim=1)

    def _asked(self, keys: Tensor, queries: int) -> Tensor:
        """Positions [rows, queries] of the newest tokens."""
        # Only tokens of the first forward may stand among the stored columns.
        first = keys.shape[1] == self.length_after_first(queries)
        return keys.gather(1, self.columns_of_first(queries)) if first else keys[:, -queries:]

    def _segment(
        self, keys: Tensor, asked: Tensor, start: int, end: int, window: int | None
    ) -> Segment:
        inside = keys[:, None, start:end]
        distance = asked[:, :, None] - inside
        visible = (inside > _HOLE) & (distance >= 0)
        if window is not None:
            visible &= distance < window
        return Segment(list(_bands(visible, start, keys.shape[1])), (start, end) == self.context)


def _bands(visible: Tensor, start: int, length: int) -> Iterator[Band]:
    """Bands of queries over ``visible`` [rows, queries, columns], which begins at ``start``."""
    queries, columns = visible.shape[1:]
    if visible.all():
        yield Band(0, queries, start, start + columns)
        return
    square = queries == columns and start + columns == length
    if square and bool((visible == torch.ones_like(visible).tril()).all()):
        yield Band(0, queries, start, length, causal=True)
        return
    for first in range(0, queries, _BAND):
        some = visible[:, first : first + _BAND]
        seen = some.any(dim=0).any(dim=0).nonzero()
        low, high = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, 1)
        cut = some[:, :, low:high]
        mask = torch.zeros(cut.shape, dtype=torch.float32, device=cut.device)
        mask = mask.masked_fill_(~cut, -torch.inf)[:, None]
        yield Band(first, first + some.shape[1], start + low, start + high, mask)
