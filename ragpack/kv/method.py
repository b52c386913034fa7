"""What APE and KV reuse have in common: the same stored KV, composed by different recipes."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import transformers

from ragpack.digest import digest_fields
from ragpack.errors import CompressionError, ConfigError
from ragpack.kv.encode import KVEncoder
from ragpack.kv.recipe import PlacedKV, Recipe
from ragpack.kv.tensors import LABELS
from ragpack.kv.verdict import require_passed
from ragpack.models import (
    checkpoint_folder,
    load_causal_lm,
    resolve,
    tokenizer_digest,
    weights_digest,
)
from ragpack.models.prompt import SEPARATOR
from ragpack.models.prompt_tokens import PromptTokenizer
from ragpack.protocols import Compressor
from ragpack.types import Artifact, Fingerprint, Kind, KVArtifact, Passage

__all__ = ["KVMethod"]

_DTYPES = {label: dtype for dtype, label in LABELS.items() if label != "f64"}
_VERSION = 1


class KVMethod(Compressor):
    """A method whose artifact is the KV of a passage behind the prompt's own beginning.

    What is stored does not depend on the recipe: every KV method finds what another one stored in
    the same way.

    Args:
        model: the decoder's name or path.
        instruction: the decoder's instruction; it is part of the prefix.
        anchor: passages to encode behind, as a text; empty for none.
        dtype: of the stored keys and values: ``"bf16"``, ``"f16"``, ``"f32"`` or ``"i8"``.
        device: where passages are encoded; a GPU where there is one.

    Raises:
        ConfigError: an unknown dtype.
    """

    kind: ClassVar[Kind] = "kv"
    query_aware: ClassVar[bool] = False

    def __init__(
        self, model: str, instruction: str, anchor: str, dtype: str, device: str | None
    ) -> None:
        if dtype not in _DTYPES:
            raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}, not {dtype!r}")
        self.model = model
        self.instruction = instruction
        self.anchor = anchor
        self.dtype = dtype
        self.device = device
        self._lock = threading.Lock()
        self._loaded: tuple[KVEncoder, PromptTokenizer] | None = None

    @property
    def encoder(self) -> KVEncoder:
        """The encoder, loaded and held against the gate on first use.

        Raises:
            UnsupportedModel: the model's KV cannot be reused, or failed the gate.
        """
        return self._load()[0]

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Decoder, tokenizer, prefix, rotary frequencies and library; nothing of the recipe."""
        encoder = self.encoder
        folder = checkpoint_folder(resolve(self.model))
        frequencies = [part.numpy().tobytes() for part in encoder.inv_freq]
        return Fingerprint(
            method="kv",
            model=resolve(self.model).name,
            weights=self.weights,
            tokenizer=tokenizer_digest(folder),
            dtype=self.dtype,
            params={
                "anchor": list(encoder.anchor_ids),
                "architecture": type(encoder.model).__name__,
                "computed_in": str(encoder.model.dtype),
                "layout": encoder.stored_layout,
                "prefix": list(encoder.prefix_ids),
                "rope": digest_fields("rope", *frequencies),
                "separator": SEPARATOR,
                "transformers": transformers.__version__.split(".")[0],
            },
            version=_VERSION,
        )

    @cached_property
    def weights(self) -> str:
        """Digest of the decoder's weights."""
        return weights_digest(checkpoint_folder(resolve(self.model)))

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        """Keys and values of each passage's tokens; an empty passage has none.

        Raises:
            CompressionError: a passage is longer than the model's window.
            UnsupportedModel: see :attr:`encoder`.
        """
        encoder, prompts = self._load()
        ids = [
            prompts.encode_before_text(p.full_text + SEPARATOR) if p.full_text else []
            for p in passages
        ]
        for passage, tokens in zip(passages, ids, strict=True):
            if len(tokens) > encoder.room:
                raise CompressionError(
                    f"passage {passage.id!r} has {len(tokens)} tokens and the window of "
                    f"{self.model} leaves room for {encoder.room}: split it"
                )
        return list(encoder.encode(ids))

    def select(
        self,
        query: str,
        passages: Sequence[Passage],
        artifacts: Sequence[Artifact],
        budget: int | None = None,
    ) -> list[Artifact]:
        """Each passage's KV, with the recipe for the hand-off."""
        recipe = self.recipe()
        return [_placed(artifact, recipe) for artifact in artifacts]

    @abstractmethod
    def recipe(self) -> Recipe:
        """How the hand-off is to compose what this method stored."""

    def _load(self) -> tuple[KVEncoder, PromptTokenizer]:
        with self._lock:
            if self._loaded is None:
                model, tokenizer = load_causal_lm(self.model, self.device)
                require_passed(model, self.weights)
                prompts = PromptTokenizer(tokenizer, self.instruction)
                encoder = KVEncoder(
                    model,
                    prompts.prompt("x", "").prefix,
                    _DTYPES[self.dtype],
                    prompts.encode_before_text(self.anchor) if self.anchor else (),
                )
                self._loaded = encoder, prompts
            return self._loaded


def _placed(artifact: Artifact, recipe: Recipe) -> PlacedKV:
    if not isinstance(artifact, KVArtifact):
        raise TypeError(f"a KV method was given a {type(artifact).__name__}")
    parts: dict[str, Any] = {
        name: getattr(artifact, name) for name in ("keys", "values", "token_ids", "layout", "dtype")
    }
    return PlacedKV(**parts, recipe=recipe)
