"""What a decoder's KV cache looks like, or why ragpack will not touch it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from ragpack.errors import UnsupportedModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["KVLayout"]

_PLAIN = {"full_attention", "sliding_attention"}


@dataclass(frozen=True, slots=True)
class KVLayout:
    """Shape of a decoder's cache.

    ``windows`` holds, for each layer, how many positions a token sees (itself included), None for
    all of them. ``max_positions`` is the longest prompt whose positions are proven.
    """

    kv_heads: int
    head_dim: int
    windows: tuple[int | None, ...]
    max_positions: int

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.windows)

    @classmethod
    def of(cls, model: PreTrainedModel) -> KVLayout:
        """Read the layout from a decoder.

        Raises:
            UnsupportedModel: a layer keeps something else than one key and value per token.
        """
        config = model.config.get_text_config(decoder=True)
        _refuse(model, config)
        heads = config.num_attention_heads
        return cls(
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            windows=_windows(model, config),
            max_positions=_max_positions(config),
        )


def _refuse(model: PreTrainedModel, config: Any) -> None:
    kinds = set(getattr(config, "layer_types", None) or ()) - _PLAIN
    reasons = {
        f"it has {', '.join(sorted(kinds))} layers": bool(kinds),
        "its keys are compressed (multi-head latent attention)": bool(
            getattr(config, "kv_lora_rank", None)
        ),
        "some of its layers share their keys and values": bool(
            getattr(config, "num_kv_shared_layers", 0)
        ),
        "some of its layers have no rotary positions": not all(
            getattr(config, "no_rope_layers", None) or (1,)
        ),
        "its attention cannot be replaced": not getattr(
            model, "_supports_attention_backend", False
        ),
    }
    for reason, applies in reasons.items():
        if applies:
            raise UnsupportedModel(f"{type(model).__name__}: no KV reuse, {reason}")


def _windows(model: PreTrainedModel, config: Any) -> tuple[int | None, ...]:
    layers = DynamicCache(config=config).layers
    for index, layer in enumerate(layers):
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise UnsupportedModel(
                f"{type(model).__name__}: no KV reuse, layer {index} keeps a "
                f"{type(layer).__name__} instead of one key and value per token"
            )
    windows = tuple(getattr(layer, "sliding_window", None) for layer in layers)
    return windows or (None,) * int(config.num_hidden_layers)


def _max_positions(config: Any) -> int:
    """The trained window; below the switch of frequencies for longrope."""
    longest = int(config.max_position_embeddings)
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return longest
    beside = getattr(config, "original_max_position_embeddings", None)
    return min(longest, int(rope.get("original_max_position_embeddings") or beside or longest))
