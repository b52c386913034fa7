"""Encoder-decoder models that rewrite a text, greedily and in batches."""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSeq2SeqLM, GenerationConfig, StoppingCriteria

from ragpack.errors import ConfigError
from ragpack.models.batches import token_batches
from ragpack.models.checkpoint import checkpoint_folder, quiet_progress
from ragpack.models.device import best_device
from ragpack.models.digests import tokenizer_digest, weights_digest
from ragpack.models.files import resolve
from ragpack.models.token_counter import plain_tokenizer
from ragpack.text import model_text
from ragpack.types import Fingerprint

__all__ = ["Seq2Seq", "load_seq2seq"]

_BATCH_TOKENS = 8192


@lru_cache(maxsize=2)
def load_seq2seq(name: str, device: str | None = None) -> "Seq2Seq":
    """An encoder-decoder model by name, in float32; calls with equal arguments share one model.

    T5 overflows in half precision.

    Args:
        name: a local path, a model package or a hub id, see :func:`ragpack.models.resolve`.
        device: such as ``"cpu"`` or ``"cuda:0"``; a GPU where there is one.

    Raises:
        ConfigError: no such model, no safetensors weights, no ``tokenizer.json``, or no
            encoder-decoder model.
    """
    files = resolve(name)
    folder = checkpoint_folder(files)
    weights = weights_digest(folder)  # first, because it refuses pickle weights
    if not (folder / "tokenizer.json").is_file():
        raise ConfigError(f"{files.name} has no tokenizer.json")
    try:
        with quiet_progress():
            model = AutoModelForSeq2SeqLM.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
            )
    except ValueError as error:
        raise ConfigError(f"{files.name} is no encoder-decoder model: {error}") from error
    model.to(device or best_device())
    tokenizer = plain_tokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")))
    return Seq2Seq(model, tokenizer, files.name, weights, tokenizer_digest(folder))


class _Limits(StoppingCriteria):
    """Ends each row of a batch at its own number of tokens [rows]."""

    def __init__(self, limits: Tensor) -> None:
        self._limits = limits

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """Whether each row has all the tokens it may have; the first is the decoder's start."""
        return input_ids.shape[1] > self._limits


class Seq2Seq:
    """An encoder-decoder model; may be called from several threads."""

    def __init__(
        self, model: Any, tokenizer: Tokenizer, name: str, weights: str, vocabulary: str
    ) -> None:
        self.name = name
        self._model = model
        self._tokenizer = tokenizer
        self._digests = weights, vocabulary

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Weights and tokenizer."""
        weights, vocabulary = self._digests
        return Fingerprint(
            method="seq2seq",
            model=self.name,
            weights=weights,
            tokenizer=vocabulary,
            dtype="float32",
        )

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text as the encoder reads them, its end token included."""
        clean = [model_text(text) for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(clean)]

    def generate(self, sources: Sequence[Sequence[int]], limits: Sequence[int]) -> list[str]:
        """The greedy output for each of ``sources`` (token ids), of at most its limit in tokens."""
        found: dict[int, str] = {}
        for batch in token_batches([len(source) for source in sources], _BATCH_TOKENS):
            rows = self._forward([sources[row] for row in batch], [limits[row] for row in batch])
            found |= zip(batch, self._tokenizer.decode_batch(rows), strict=True)
        return [found[row].strip() for row in range(len(sources))]

    def _forward(self, sources: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        device, own = self._model.device, self._model.generation_config
        ids = pad_sequence([torch.tensor(source) for source in sources], batch_first=True)
        lengths = torch.tensor([len(source) for source in sources])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        greedy = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=max(limits),
            do_sample=False,
            num_beams=1,
            decoder_start_token_id=own.decoder_start_token_id,
            eos_token_id=own.eos_token_id,
            pad_token_id=own.pad_token_id,
        )
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                generation_config=greedy,
                stopping_criteria=[_Limits(torch.tensor(limits, device=device))],
            )
        rows: list[list[int]] = output.tolist()
        return rows
