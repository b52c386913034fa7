"""Causal language models, loaded once per process and shared."""

from functools import cache
from pathlib import Path
from threading import Lock

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from ragpack.models.checkpoint import checkpoint_folder, quiet_progress
from ragpack.models.device import best_device
from ragpack.models.digests import weights_digest
from ragpack.models.files import resolve

__all__ = ["load_causal_lm"]

_lock = Lock()


def load_causal_lm(
    name: str, device: str | None = None, dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in evaluation mode and its tokenizer; later calls return the same two objects.

    Attention is PyTorch's scaled dot product wherever the architecture has it.

    Args:
        name: a local path, a model package or a hub id, see :func:`ragpack.models.resolve`.
        device: such as ``"cpu"`` or ``"cuda:0"``; a GPU where there is one.
        dtype: of the weights; float32 on a CPU and the checkpoint's own elsewhere, unless given.

    Raises:
        ConfigError: no such model, or it has no safetensors weights.
        MissingExtraError: the model's package, or what reads its GGUF, is not installed.
    """
    folder = checkpoint_folder(resolve(name))
    device = device or best_device()
    if dtype is None and device == "cpu":
        dtype = torch.float32
    with _lock:  # two threads that ask at once get one model
        return _load(folder, device, dtype)


@cache
def _load(
    folder: Path, device: str, dtype: torch.dtype | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    weights_digest(folder)  # refuses pickle weights with a word on what to do
    with quiet_progress():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype or "auto", use_safetensors=True, local_files_only=True
        )
    model.to(device)  # type: ignore[arg-type]  # transformers wraps it without its "self"
    return model, tokenizer
