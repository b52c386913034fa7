"""Checkpoint folders that transformers can load; a GGUF file is converted into one, once."""

import importlib.util
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from ragpack.config import home
from ragpack.errors import ConfigError, MissingExtraError
from ragpack.models.digests import cached_file_digest
from ragpack.models.files import ModelFiles

__all__ = ["checkpoint_folder", "quiet_progress", "tokenizer_folder"]

logger = logging.getLogger(__name__)

Convert = Callable[[Path, Path], None]


def checkpoint_folder(files: ModelFiles) -> Path:
    """The folder with configuration, safetensors weights and tokenizer of ``files``.

    A GGUF file is read by transformers (about half a minute for 135M parameters) and written as a
    float32 checkpoint below ``RAGPACK_HOME``, so that later loads take a second or two. Several
    processes may ask at once: one converts, the others wait.

    Raises:
        MissingExtraError: a GGUF is to be converted and the packages that read it are absent.
        ConfigError: the converted model cannot be written.
    """
    if files.path.suffix != ".gguf":
        return files.path
    return _converted(files, _target(files), _convert)


def tokenizer_folder(files: ModelFiles) -> Path:
    """A folder with the tokenizer of ``files``; of a GGUF no more than that is converted.

    Raises:
        MissingExtraError: a GGUF is to be read and the packages that read it are absent.
        ConfigError: the tokenizer cannot be written.
    """
    if files.path.suffix != ".gguf":
        return files.path
    whole = _target(files)
    if whole.is_dir():
        return whole
    return _converted(files, whole.with_name(f"{whole.name}-tokenizer"), _convert_tokenizer)


def _target(files: ModelFiles) -> Path:
    return home() / "models" / f"{files.name}-{cached_file_digest(files.path)[:16]}"


def _converted(files: ModelFiles, target: Path, convert: Convert) -> Path:
    """``target``, made by ``convert`` if it is not there."""
    if not target.is_dir():
        _require_readers(files.name)
        try:
            _convert_once(files.path, target, convert)
        except OSError as error:
            raise ConfigError(
                f"cannot write the converted model to {target}: {error}. Set RAGPACK_HOME to a "
                "folder with room for it"
            ) from error
    return target


def _convert_once(source: Path, target: Path, convert: Convert) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.is_dir():  # another process did it while this one waited
            return
        logger.info("converting %s into %s (once)", source.name, target)
        start = time.perf_counter()
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
        convert(source, partial)
        partial.rename(target)
        logger.info("converted %s in %.1f s", source.name, time.perf_counter() - start)


def _require_readers(name: str) -> None:
    for module in ("gguf", "accelerate"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(
                f"reading the GGUF of {name!r} needs the package {module!r}: "
                "pip install 'ragpack-middleware[demo]'",
                name=module,
            )


def _convert(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    logger.warning(
        "converting the weights in %s: half a minute for 135M parameters, this once", source.name
    )
    _convert_tokenizer(source, target)
    with quiet_progress():
        loaded = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32
        )
        # A model loaded from GGUF refuses save_pretrained, so its state moves into a fresh one.
        del loaded.config.quantization_config
        fresh = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            loaded.config, dtype=torch.float32
        )
        fresh.load_state_dict(loaded.state_dict())
        fresh.generation_config = loaded.generation_config
        fresh.save_pretrained(target)


def _convert_tokenizer(source: Path, target: Path) -> None:
    from transformers import AutoTokenizer

    with quiet_progress():
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        tokenizer.save_pretrained(target)


@contextmanager
def quiet_progress() -> Iterator[None]:
    """No progress bars of transformers while a model loads: stderr belongs to the caller."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
