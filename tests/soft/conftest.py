"""Tiny random decoders with SmolLM2's tokenizer, and checkpoints of REFRAG made for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from ragpack.compressors.refrag import Refrag
from ragpack.models import checkpoint_folder, resolve
from ragpack.train.refrag.start import untrained

SMOLLM = "smollm2-135m-instruct"
ENCODER = "all-minilm-l6-v2"
_SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


@pytest.fixture(scope="session")
def make_decoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Makes the folder of a random decoder of a family."""

    def make(class_name: str = "LlamaConfig", seed: int = 0, **settings: Any) -> str:
        folder = tmp_path_factory.mktemp("decoder")
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint_folder(resolve(SMOLLM)))
        config = getattr(transformers, class_name)(vocab_size=len(tokenizer), **(_SHAPE | settings))
        torch.manual_seed(seed)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return make


@pytest.fixture(scope="session")
def decoder_folder(make_decoder: Callable[..., str]) -> str:
    """A random Llama."""
    return make_decoder()


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a checkpoint for a decoder, with weights that are not those of the start."""

    def make(decoder: str, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        made = untrained(ENCODER, decoder, inner=24, policy_width=16, chunk=8)
        with torch.no_grad():
            made.projector.up.weight.normal_(std=0.1)
            made.policy.logit.weight.normal_()
            made.rarity.uniform_(0.1, 2.0)
        folder = tmp_path_factory.mktemp("refrag")
        made.save(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: Callable[..., Path], decoder_folder: str) -> Path:
    """A checkpoint for the random Llama."""
    return make_checkpoint(decoder_folder)


@pytest.fixture
def refrag(checkpoint: Path) -> Callable[..., Refrag]:
    """Makes the method on that checkpoint."""
    return lambda **settings: Refrag(checkpoint, **settings)
