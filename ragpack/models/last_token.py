"""Retrievers that are language models: a text's vector is the last state of its last token."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from ragpack.models.checkpoint import checkpoint_folder, quiet_progress
from ragpack.models.device import best_device
from ragpack.models.digests import tokenizer_digest, weights_digest
from ragpack.models.files import resolve
from ragpack.text import model_text
from ragpack.types import Fingerprint

__all__ = ["LastTokenEncoder"]


class LastTokenEncoder:
    """Vectors as xRAG's retriever gives them (SFR-Embedding-Mistral): not normalised.

    Args:
        name: a local path or a hub id, see :func:`ragpack.models.resolve`.
        max_tokens: longer texts are cut there, the end token included.
        device: such as ``"cpu"``; a GPU where there is one.

    Raises:
        ConfigError: no such model, or it has no safetensors weights.
    """

    def __init__(self, name: str, max_tokens: int, device: str | None = None) -> None:
        self._files = resolve(name)
        self._folder = checkpoint_folder(self._files)
        self._max_tokens = max_tokens
        weights_digest(self._folder)  # refuses pickle weights
        with quiet_progress():
            self._tokenizer = AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
            self._model = AutoModel.from_pretrained(
                self._folder, use_safetensors=True, local_files_only=True, dtype="auto"
            ).to(device or best_device())

    @property
    def dim(self) -> int:
        """Width d of a vector."""
        return int(self._model.config.hidden_size)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Weights, tokenizer and length limit."""
        return Fingerprint(
            method="last-token-encoder",
            model=self._files.name,
            weights=weights_digest(self._folder),
            tokenizer=tokenizer_digest(self._folder),
            dtype=str(self._model.dtype),
            params={"max_tokens": self._max_tokens},
        )

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [len(texts), d], in order; each text goes through the model alone."""
        rows = [self._last(model_text(text)) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, self.dim), dtype=np.float32)

    def _last(self, text: str) -> NDArray[np.float32]:
        backend = self._tokenizer.backend_tokenizer
        text_ids = backend.encode(text).ids[: self._max_tokens - 1]
        ids = [*text_ids, self._tokenizer.eos_token_id]
        hidden = self._model(torch.tensor([ids], device=self._model.device)).last_hidden_state
        row: NDArray[np.float32] = hidden[0, -1].float().cpu().numpy()
        return row
