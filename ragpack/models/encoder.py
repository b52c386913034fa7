"""Sentence encoders: texts to vectors, batched by tokens, the same for every order of calls."""

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from ragpack import config
from ragpack.digest import digest_fields
from ragpack.errors import ConfigError, UnsupportedModel
from ragpack.models.batches import equal_batches, filled, packed_batches, token_batches
from ragpack.models.checkpoint import checkpoint_folder, quiet_progress
from ragpack.models.device import best_device
from ragpack.models.digests import tokenizer_digest, weights_digest
from ragpack.models.files import resolve
from ragpack.models.lora import adapter_digest, adapter_folder, merge_lora
from ragpack.models.packed import allow_packing, packed_states
from ragpack.models.token_counter import plain_tokenizer
from ragpack.text import model_text
from ragpack.types import Fingerprint

__all__ = ["Recipe", "SentenceEncoder", "load_encoder"]

# Padded tokens of a batch. Larger ones leave a CPU's caches: 16,384 take twice the time of 2,048.
_CPU_BATCH_TOKENS = 2048
_GPU_BATCH_TOKENS = 32_768


class Recipe(NamedTuple):
    """What :func:`load_encoder` made an encoder of; it makes the same one in another process."""

    name: str
    device: str | None
    max_tokens: int | None
    adapter: Path | None
    dtype: Literal["float32", "bfloat16"]


def load_encoder(
    name: str,
    device: str | None = None,
    max_tokens: int | None = None,
    adapter: Path | None = None,
    dtype: Literal["float32", "bfloat16"] | None = None,
) -> "SentenceEncoder":
    """An encoder by name: a sentence-transformers model, or a plain checkpoint to be mean-pooled.

    Calls with equal arguments share one model, so a retriever and a compressor load it once.
    RECOMP's Contriever checkpoints are of the second sort (mean pooling, no normalisation).

    Args:
        name: a local path, a model package or a hub id, see :func:`ragpack.models.resolve`.
        device: such as ``"cpu"`` or ``"cuda:0"``; a GPU where there is one.
        max_tokens: longer texts are cut there; the model's own limit unless given.
        adapter: folder of a LoRA adapter to merge into the transformer.
        dtype: ``"bfloat16"`` for mixed precision, which GPUs are several times faster in;
            :func:`ragpack.config.encoder_dtype` unless given.

    Raises:
        ConfigError: no such model or adapter, no safetensors weights, or more tokens than the
            model has positions.
        UnsupportedModel: its first module is not a transformer with a fast tokenizer, or the
            adapter does not fit it.
    """
    return _load(Recipe(name, device, max_tokens, adapter, dtype or config.encoder_dtype()))


@lru_cache(maxsize=4)
def _load(recipe: Recipe) -> "SentenceEncoder":
    files = resolve(recipe.name)
    folder = checkpoint_folder(files)
    weights = weights_digest(folder)  # first, because it refuses pickle weights
    with quiet_progress():
        model = SentenceTransformer(
            str(folder),
            device=recipe.device or best_device(),
            local_files_only=True,
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        )
    if recipe.max_tokens is not None:
        _limit(model, recipe.max_tokens, files.name)
    if recipe.adapter is not None:
        adapter = adapter_folder(str(recipe.adapter))
        merge_lora(_transformer(model), adapter)
        weights = digest_fields(weights, adapter_digest(adapter))
    return SentenceEncoder(model, recipe, files.name, weights, tokenizer_digest(folder))


def _limit(model: SentenceTransformer, max_tokens: int, name: str) -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    if max_tokens < 1 or (positions is not None and max_tokens > positions):
        raise ConfigError(f"max_tokens must be 1 to {positions} for {name}, not {max_tokens}")
    model.max_seq_length = max_tokens


class SentenceEncoder:
    """A text encoder over sentence-transformers; may be called from several threads.

    On a CPU a text's vector has the same bits whatever stands beside it in a call: nothing is
    padded (:mod:`ragpack.models.packed`; where the architecture does not allow that, only texts of
    equal length share a batch). On a GPU, where small batches are slow, the shape of the batch may
    move an element of a unit vector by 1e-6. In mixed precision matrices are
    multiplied in bfloat16, and vectors are a hundredth off; they have another fingerprint.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        recipe: Recipe,
        name: str,
        weights: str,
        tokenizer: str,
    ) -> None:
        self.recipe = recipe
        self._model = model.eval()
        self._name = name
        self._digests = weights, tokenizer
        self._dim, self._tokenizer = _width_and_tokenizer(model, name)
        self._on_cpu = self._model.device.type == "cpu"
        self._packs = self._on_cpu and allow_packing(_transformer(model))
        self._prompt = model.prompts.get(model.default_prompt_name or "") or ""

    @property
    def dim(self) -> int:
        """Width d of a vector."""
        return self._dim

    @property
    def window(self) -> int:
        """Tokens of a text that are read: the model's limit without special tokens."""
        limit = self._model.max_seq_length or 0  # never None, see _width_and_tokenizer
        return limit - self._tokenizer.num_special_tokens_to_add(is_pair=False)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Weights, tokenizer, pooling, length limit and prompt: what the vectors depend on."""
        weights, tokenizer = self._digests
        after: list[Any] = list(self._model)[1:]
        return Fingerprint(
            method="sentence-encoder",
            model=self._name,
            weights=weights,
            tokenizer=tokenizer,
            dtype=self.recipe.dtype,
            params={
                "max_tokens": self._model.max_seq_length,
                "modules": [[type(one).__name__, one.get_config_dict()] for one in after],
                "prompt": self._prompt,
            },
        )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [len(texts), d], in order; a text of no words gives that of the empty text.

        Text that reads like a special token (``[SEP]``) is text.
        """
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        clean = [self._prompt + model_text(text) for text in texts]
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(clean)]
        for rows in self._batches([len(ids) for ids in tokens]):
            vectors[rows] = self._forward(filled([tokens[row] for row in rows]))[: len(rows)]
        return vectors

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        if self._packs:
            return packed_batches(lengths, _CPU_BATCH_TOKENS)
        if self._on_cpu:
            return equal_batches(lengths, _CPU_BATCH_TOKENS)
        return token_batches(lengths, _GPU_BATCH_TOKENS)

    def _forward(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        device = self._model.device
        mixed = torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.dtype == "bfloat16")
        with torch.inference_mode(), mixed:
            vectors = self._packed(batch) if self._packs else self._padded(batch)
        found: NDArray[np.float32] = vectors.float().cpu().numpy()
        return found

    def _padded(self, batch: Sequence[Sequence[int]]) -> Tensor:
        """Vectors [len(batch), d] of texts that are padded to the longest."""
        device = self._model.device
        ids = pad_sequence([torch.tensor(row) for row in batch], batch_first=True)
        lengths = torch.tensor([len(row) for row in batch])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        features = self._model({"input_ids": ids.to(device), "attention_mask": mask.to(device)})
        vectors: Tensor = features["sentence_embedding"]
        return vectors

    def _packed(self, batch: Sequence[Sequence[int]]) -> Tensor:
        """Vectors [len(batch), d] of texts that stand one behind the other."""
        _, *after = self._model
        pooled = []
        for states in packed_states(_transformer(self._model), batch):
            mask = torch.ones(states.shape[:2], dtype=torch.long)
            features = {"token_embeddings": states, "attention_mask": mask}
            for module in after:
                features = module(features)
            pooled.append(features["sentence_embedding"])
        return torch.cat(pooled)


def _transformer(model: SentenceTransformer) -> PreTrainedModel:
    return cast(PreTrainedModel, model[0].model)


def _width_and_tokenizer(model: SentenceTransformer, name: str) -> tuple[int, Tokenizer]:
    """The tokenizer is a copy: transformers changes its own between calls, so threads clash."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    limit, width = model.max_seq_length, model.get_embedding_dimension()
    if not isinstance(backend, Tokenizer) or limit is None or width is None:
        raise UnsupportedModel(
            f"{name} is no text encoder that ragpack can batch: its first module must be a "
            "transformer with a fast tokenizer and a length limit"
        )
    tokenizer = plain_tokenizer(Tokenizer.from_str(backend.to_str()))
    tokenizer.enable_truncation(limit)
    return width, tokenizer
