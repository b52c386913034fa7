"""LoRA adapters (Hu et al., 2021) in the PEFT library's format: merged into a model, and saved."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ragpack.digest import digest_fields
from ragpack.errors import ConfigError, UnsupportedModel
from ragpack.models.digests import cached_file_digest
from ragpack.models.files import resolve
from ragpack.models.low_rank import LowRank

__all__ = ["adapter_digest", "adapter_folder", "merge_lora", "save_lora"]

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PLAIN = {"bias": "none", "use_dora": False, "rank_pattern": {}, "alpha_pattern": {}}
"""Settings of an adapter, and the one value of each that a plain merge covers."""


def adapter_folder(name: str) -> Path:
    """The folder of an adapter: a local path, or a hub id.

    Raises:
        ConfigError: it is not there, or has no safetensors weights (pickle weights are refused).
    """
    local = Path(name).expanduser()
    folder = local if (local / _CONFIG).is_file() else resolve(name).path
    for file in (_CONFIG, _WEIGHTS):
        if not (folder / file).is_file():
            raise ConfigError(
                f"{folder} is no LoRA adapter that ragpack loads: it has no {file}. Pickle weights "
                "(adapter_model.bin) can run code and are refused"
            )
    return folder


def adapter_digest(folder: Path) -> str:
    """Digest of an adapter's matrices and of the settings that scale them."""
    return digest_fields(
        "lora", *(cached_file_digest(folder / file) for file in (_CONFIG, _WEIGHTS))
    )


def merge_lora(model: nn.Module, folder: Path) -> None:
    """Add every update ``scale * B @ A`` of the adapter to the weight it belongs to, in place.

    Raises:
        UnsupportedModel: the adapter is of another sort, or does not fit the model.
    """
    config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    scale = _scale(config)
    parts = load_file(folder / _WEIGHTS)
    names = sorted(name for name in parts if name.endswith(".lora_A.weight"))
    if len(names) * 2 != len(parts):
        raise UnsupportedModel(f"{folder} holds more than LoRA matrices: {sorted(parts)[:3]} …")
    for name in names:
        down, up = parts[name], parts[name.replace(".lora_A.", ".lora_B.")]
        weight = _target(model, name.removeprefix(_PREFIX).removesuffix(".lora_A.weight"))
        if weight.shape != (up.shape[0], down.shape[1]):
            raise UnsupportedModel(f"{name} does not fit a weight of shape {tuple(weight.shape)}")
        with torch.no_grad():
            weight += (scale * (up.float() @ down.float())).to(weight)


def save_lora(updates: Mapping[str, LowRank], folder: Path, base: str) -> Path:
    """Write ``updates`` of the model called ``base`` as an adapter, in half precision.

    Returns:
        The path of the matrices.
    """
    parts: dict[str, Tensor] = {}
    for path, update in updates.items():
        parts[f"{_PREFIX}{path}.lora_A.weight"] = update.down.detach().half().cpu()
        parts[f"{_PREFIX}{path}.lora_B.weight"] = update.up.detach().half().cpu()
    rank = next(iter(updates.values())).down.shape[0]
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted(updates),
        "bias": "none",
    }
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(parts, folder / _WEIGHTS)
    return folder / _WEIGHTS


def _scale(config: dict[str, Any]) -> float:
    odd = [key for key, plain in _PLAIN.items() if (config.get(key) or plain) != plain]
    if config.get("peft_type") != "LORA" or odd or config.get("fan_in_fan_out"):
        raise UnsupportedModel(f"only plain LoRA adapters can be merged; this one sets {odd}")
    rank = config["r"]
    return float(config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank))


def _target(model: nn.Module, path: str) -> Tensor:
    try:
        layer = model.get_submodule(path)
    except AttributeError as error:
        raise UnsupportedModel(f"the adapter changes {path!r}, which the model lacks") from error
    if not isinstance(layer, nn.Linear):
        raise UnsupportedModel(f"the adapter changes {path!r}, which is no linear layer")
    return layer.weight
