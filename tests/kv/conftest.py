"""Tiny random decoders of every supported family."""

import os
from collections.abc import Callable

import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")

_SHAPE = {
    "vocab_size": 199,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
_ROPES = {
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
        "rope_theta": 10000.0,
    },
    "yarn": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 64,
        "rope_theta": 10000.0,
    },
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
}
_ALTERNATING = ["sliding_attention", "full_attention"] * 2

# name -> (config class, settings beyond the common shape)
_MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("LlamaConfig", {}),
    "llama-linear": ("LlamaConfig", {"rope_parameters": _ROPES["linear"]}),
    "llama-llama3": ("LlamaConfig", {"rope_parameters": _ROPES["llama3"]}),
    "llama-yarn": ("LlamaConfig", {"rope_parameters": _ROPES["yarn"]}),
    "llama-dynamic": ("LlamaConfig", {"rope_parameters": _ROPES["dynamic"]}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {}),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "mistral-window": ("MistralConfig", {"sliding_window": 8}),
    "gemma2": ("Gemma2Config", {"sliding_window": 8, "layer_types": _ALTERNATING}),
    "gemma3": ("Gemma3TextConfig", {"sliding_window": 8, "layer_types": _ALTERNATING}),
    "phi3": ("Phi3Config", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "phi3-partial": (
        "Phi3Config",
        {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.5,
            }
        },
    ),
    "gpt-oss": (
        "GptOssConfig",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 8,
            "layer_types": _ALTERNATING,
            "rope_parameters": _ROPES["yarn"],
        },
    ),
}


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., torch.nn.Module]:
    """Makes the random decoder of a family by name, in float64, the same for every call."""
    import transformers

    made: dict[str, torch.nn.Module] = {}

    def make(name: str) -> torch.nn.Module:
        if name not in made:
            class_name, settings = _MODELS[name]
            config = getattr(transformers, class_name)(**(_SHAPE | settings))
            torch.manual_seed(7)
            model = transformers.AutoModelForCausalLM.from_config(
                config, dtype=torch.float64, experts_implementation="eager"
            )
            made[name] = model.eval()
        return made[name]

    return make


@pytest.fixture(autouse=True)
def _no_gradients() -> None:
    torch.set_grad_enabled(False)
