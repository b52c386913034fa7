"""The exactness matrix: a model's KV is trusted only after six equalities hold on that model.

Each row compares the machinery of this package with plain forwards of the same model under its
eager attention, on random tokens. A model that fails one of them would answer fluently and wrong,
which no later check could see.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from ragpack.kv.compose import Row, compose_parallel, compose_sequential
from ragpack.kv.encode import KVEncoder
from ragpack.kv.forward import first_logits, generate_inputs, next_logits
from ragpack.kv.rope import rotate_into

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ragpack.types import KVArtifact

__all__ = ["TOLERANCE", "GateRow", "run_gate"]

TOLERANCE = {
    torch.float64: 1e-5,
    torch.float32: 1e-5,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}
"""Largest error allowed, relative to the largest value compared, by the model's precision."""

_SHIFT = 37
_NEW = 4
_LENGTHS = (13, 9, 17)
_LONGEST_WINDOW = 512
_eager = threading.Lock()


@dataclass(frozen=True, slots=True)
class GateRow:
    """One equality: its relative error, and the error allowed."""

    name: str
    error: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether it holds; NaN does not."""
        return self.error <= self.allowed


def run_gate(model: PreTrainedModel, seed: int = 0) -> list[GateRow]:
    """The exactness matrix of ``model``, one row for each equality.

    Takes about ten forwards of a short prompt; longer than the sliding window where that is at
    most 512 tokens, so that windowing is proven too.

    Raises:
        UnsupportedModel: the model's KV cannot be reused at all.
    """
    probe = _Probe(model, seed)
    allowed = TOLERANCE[model.dtype]
    with torch.inference_mode():
        return [GateRow(name, check(probe), allowed) for name, check in _CHECKS.items()]


class _Probe:
    """Random prompts for one model, and what plain forwards make of them."""

    def __init__(self, model: PreTrainedModel, seed: int) -> None:
        self.model = model
        self._random = random.Random(seed)  # noqa: S311  (test prompts, no secrets)
        self.encoder = KVEncoder(model, self.tokens(8), dtype=model.dtype)
        self.passages = [self.tokens(length * self._stretch) for length in _LENGTHS]
        self.context = [token for passage in self.passages for token in passage]
        self.query = self.tokens(7)

    @property
    def _stretch(self) -> int:
        """Factor on the passages' lengths that carries the prompt over a moderate window."""
        windows = [w for w in self.encoder.layout.windows if w is not None and w <= _LONGEST_WINDOW]
        needed = max(windows, default=0) * 2 // sum(_LENGTHS) + 1
        room = (self.encoder.layout.max_positions - 32) // sum(_LENGTHS)
        return max(1, min(needed, room))

    def tokens(self, count: int) -> list[int]:
        vocabulary = self.model.config.get_text_config(decoder=True).vocab_size
        return [self._random.randrange(vocabulary) for _ in range(count)]

    @cached_property
    def artifacts(self) -> list[KVArtifact]:
        return self.encoder.encode(self.passages)

    @cached_property
    def sequential(self) -> Tensor:
        """Logits [query, vocabulary] of the plain prompt."""
        return self.plain([*self.encoder.prefix_ids, *self.context, *self.query])

    def plain(self, ids: list[int], **inputs: Any) -> Tensor:
        """Logits of the last query's tokens in one eager forward without ragpack."""
        with _eager_attention(self.model):
            tokens = torch.tensor([ids], device=self.model.device)
            logits = self.model(input_ids=tokens, use_cache=True, **inputs).logits
        last: Tensor = logits[0, -len(self.query) :]
        return last

    def row(self, recompute: tuple[int, ...] = (), passages: int = 3) -> Row:
        return Row(self.artifacts[:passages], self.query, recompute)


@contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """The model's own attention, written out, in place of whatever is installed."""
    with _eager:
        before = model.config._attn_implementation
        model.set_attn_implementation("eager")
        try:
            yield
        finally:
            model.set_attn_implementation(before)


def _error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def _cache_equals_forward(probe: _Probe) -> float:
    """A prompt forwarded in two parts gives the logits of one part."""
    cache = DynamicCache()
    ids = [*probe.encoder.prefix_ids, *probe.context]
    probe.plain(ids, past_key_values=cache)
    positions = torch.arange(len(ids), len(ids) + len(probe.query), device=probe.model.device)
    found = probe.plain(probe.query, past_key_values=cache, position_ids=positions[None])
    return _error(found, probe.sequential)


def _rotation_equals_offset(probe: _Probe) -> float:
    """Keys encoded at 0 and rotated equal keys encoded further on; values stay as they are."""
    ids = torch.tensor([probe.passages[0]], device=probe.model.device)
    caches = []
    for start in (0, _SHIFT):
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)[None]
        cache = DynamicCache()
        with _eager_attention(probe.model):
            probe.model(input_ids=ids, position_ids=positions, past_key_values=cache)
        caches.append(cache)
    worst = 0.0
    for near, far, inv_freq in zip(*caches, probe.encoder.inv_freq, strict=True):
        moved = torch.empty_like(near[0])
        rotate_into(moved, near[0], _SHIFT, inv_freq)
        worst = max(worst, _error(moved, far[0]), _error(near[1], far[1]))
    return worst


def _parallel_equals_block_mask(probe: _Probe) -> float:
    """APE with T = S = 1 equals one plain forward in which passages do not see each other."""
    prefix = len(probe.encoder.prefix_ids)
    lengths = [prefix, *map(len, probe.passages), len(probe.query)]
    starts = [0, *[prefix] * len(probe.passages), prefix + max(lengths[1:-1])]
    places = [range(s, s + n) for s, n in zip(starts, lengths, strict=True)]
    positions = torch.tensor([p for place in places for p in place])
    block = torch.tensor([b for b, n in enumerate(lengths) for _ in range(n)])
    everyone = (block == 0) | (block[:, None] == len(lengths) - 1) | (block[:, None] == block)
    visible = everyone.tril()
    mask = _masks(probe, positions[:, None] - positions, visible)
    ids = [*probe.encoder.prefix_ids, *probe.context, *probe.query]
    wanted = probe.plain(
        ids, attention_mask=mask, position_ids=positions[None].to(probe.model.device)
    )
    composed = compose_parallel(probe.encoder, [probe.row()])
    return _error(first_logits(probe.model, composed, len(probe.query))[0], wanted)


def _masks(probe: _Probe, distance: Tensor, visible: Tensor) -> Tensor | dict[str, Tensor]:
    """Additive masks [1, 1, n, n] by position: one, or one for each layer type."""

    def additive(window: int | None) -> Tensor:
        seen = visible if window is None else visible & (distance < window)
        mask = torch.full(seen.shape, torch.finfo(probe.model.dtype).min, dtype=probe.model.dtype)
        return mask.masked_fill_(seen, 0.0)[None, None].to(probe.model.device)

    windows = probe.encoder.layout.windows
    kinds = getattr(probe.model.config.get_text_config(decoder=True), "layer_types", None)
    if kinds is None or len(set(kinds)) == 1:
        return additive(windows[0])
    return {kind: additive(window) for kind, window in zip(kinds, windows, strict=True)}


def _one_passage_equals_sequential(probe: _Probe) -> float:
    """With a single passage both layouts are the plain prompt."""
    wanted = probe.plain([*probe.encoder.prefix_ids, *probe.passages[0], *probe.query])
    return max(
        _error(first_logits(probe.model, composed, len(probe.query))[0], wanted)
        for composed in (
            compose_parallel(probe.encoder, [probe.row(passages=1)]),
            compose_sequential(probe.encoder, [probe.row(passages=1)]),
        )
    )


def _full_recompute_equals_sequential(probe: _Probe) -> float:
    """With every token encoded again the cache is the plain prompt's."""
    everything = tuple(range(len(probe.context)))
    composed = compose_sequential(probe.encoder, [probe.row(everything)])
    found = first_logits(probe.model, composed, len(probe.query))[0]
    return _error(found, probe.sequential)


def _generate_equals_loop(probe: _Probe) -> float:
    """``generate()`` gives the logits of a loop that feeds its tokens one by one."""
    some = tuple(range(len(probe.passages[0]), len(probe.passages[0]) + 5))
    inputs = generate_inputs(probe.model, compose_sequential(probe.encoder, [probe.row(some)]))
    made: Any = probe.model.generate(  # type: ignore[operator]
        **inputs,
        max_new_tokens=_NEW,
        min_new_tokens=_NEW,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    composed = compose_sequential(probe.encoder, [probe.row(some)])
    steps = [first_logits(probe.model, composed)[:, -1]]
    for token in made.sequences[0, -_NEW:-1]:
        steps.append(next_logits(probe.model, composed, token.view(1, 1))[:, -1])
    return _error(torch.stack(made.logits), torch.stack(steps))


_CHECKS: dict[str, Callable[[_Probe], float]] = {
    "cache equals forward": _cache_equals_forward,
    "rotation equals encoding at an offset": _rotation_equals_offset,
    "parallel equals a block mask": _parallel_equals_block_mask,
    "one passage equals sequential": _one_passage_equals_sequential,
    "recompute 1 equals sequential": _full_recompute_equals_sequential,
    "generate() equals the loop": _generate_equals_loop,
}
