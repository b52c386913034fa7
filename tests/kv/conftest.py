"""Tiny random decoders of every supported family."""

import os
import random
from collections.abc import Callable, Iterator

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
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


FAMILIES = sorted(set(_MODELS) - {"llama-dynamic"})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for ``family`` on every supported one."""
    if "family" in metafunc.fixturenames:
        metafunc.parametrize("family", FAMILIES)


class Request:
    """Random tokens of a request, the same for the same seed."""

    def __init__(self, seed: int = 0, lengths: tuple[int, ...] = (13, 9, 17)) -> None:
        numbers = random.Random(seed)
        self.prefix, self.query = ([numbers.randrange(3, 190) for _ in range(n)] for n in (7, 6))
        self.passages = [[numbers.randrange(3, 190) for _ in range(n)] for n in lengths]
        self.context = [token for passage in self.passages for token in passage]

    @property
    def prompt(self) -> list[int]:
        """The plain prompt."""
        return [*self.prefix, *self.context, *self.query]


@pytest.fixture(scope="session")
def make_request() -> type[Request]:
    return Request


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference over the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.fixture(scope="session")
def error_of() -> Callable[[torch.Tensor, torch.Tensor], float]:
    return relative_error
