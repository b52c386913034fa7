"""Content digests of a model's files, remembered so that a start does not read gigabytes."""

import json
import logging
import os
import tempfile
from pathlib import Path

from ragpack.config import home
from ragpack.digest import canonical_json, digest_fields, digest_file
from ragpack.errors import ConfigError

__all__ = ["cached_file_digest", "tokenizer_digest", "weights_digest"]

logger = logging.getLogger(__name__)

_VOLATILE = ("transformers_version", "_name_or_path")
_VOCABULARIES = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt")


def weights_digest(path: Path) -> str:
    """Digest of everything a forward pass reads: all safetensors files and their configurations.

    Args:
        path: a checkpoint folder, or a GGUF file.

    Raises:
        ConfigError: the folder holds no safetensors weights.
    """
    if path.is_file():
        return cached_file_digest(path)
    weights = sorted(path.rglob("*.safetensors"))
    if not weights:
        raise ConfigError(
            f"{path} holds no safetensors weights. Pickle weights (.bin, .pt) can run code and are "
            'refused; convert them once where you trust them: python -c "from transformers import '
            f"AutoModel; AutoModel.from_pretrained('{path}').save_pretrained('{path}')\""
        )
    fields = [part for file in weights for part in (_name(file, path), cached_file_digest(file))]
    for file in sorted(path.rglob("config.json")):
        fields += [_name(file, path), _stable_config(file)]
    return digest_fields("weights", *fields)


def tokenizer_digest(path: Path) -> str:
    """Digest of the files that turn text into tokens.

    Args:
        path: a checkpoint folder.

    Raises:
        ConfigError: the folder holds no tokenizer.
    """
    files = [path / "tokenizer.json"]
    if not files[0].is_file():
        files = [path / name for name in _VOCABULARIES if (path / name).is_file()]
    if not files:
        raise ConfigError(f"{path} holds no tokenizer (tokenizer.json or a vocabulary)")
    fields = [part for file in files for part in (file.name, cached_file_digest(file))]
    return digest_fields("tokenizer", *fields)


def cached_file_digest(path: Path) -> str:
    """Digest of a file's bytes; read again only when its path, size or time changed."""
    real = path.resolve()
    stat = real.stat()
    state = digest_fields("file", str(real), str(stat.st_size), str(stat.st_mtime_ns))
    remembered = home() / "digests" / state
    try:
        return remembered.read_text(encoding="ascii")
    except OSError:
        digest = digest_file(real)
        _remember(remembered, digest)
        return digest


def _remember(target: Path, digest: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=target.parent)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(digest)
        os.replace(partial, target)
    except OSError as error:  # a read-only home costs time, nothing else
        logger.warning("cannot remember a model's digest in %s: %s", target.parent, error)


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()


def _stable_config(file: Path) -> str:
    """The configuration without what changes with the library that wrote it."""
    config = json.loads(file.read_text(encoding="utf-8"))
    return canonical_json({key: value for key, value in config.items() if key not in _VOLATILE})
