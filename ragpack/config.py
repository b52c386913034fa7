"""Every default and every environment variable of ragpack, in one place.

| variable | meaning | default |
|---|---|---|
| ``RAGPACK_STORE`` | store URL | ``lmdb://`` below the cache folder |
| ``RAGPACK_NAMESPACE`` | tenant wall | ``default`` |
| ``RAGPACK_SECRET`` | key of the frames' authentication tag | none: checksum only |
| ``RAGPACK_HOME`` | folder for converted models and the embedded store | ``~/.cache/ragpack`` |
| ``RAGPACK_ENCODER_DTYPE`` | ``bfloat16``: encoders compute in mixed precision | ``float32`` |
| ``RAGPACK_BYPASS`` | 1: pass every context on uncompressed | 0 |
| ``RAGPACK_PLUGINS`` | names of foreign plug-ins that may load, comma-separated | all |
| ``RAGPACK_DOWNLOAD`` | 1: models may be fetched from the hub | 0 |
| ``RAGPACK_API_KEY`` | bearer key sent to ``openai://`` and ``vllm://`` decoders | none |
| ``RAGPACK_KEYS`` | ``name:sha256`` of bearer keys that ``ragpack serve`` takes, by commas | none |
"""

import os
from pathlib import Path
from typing import Literal

from ragpack.errors import ConfigError

__all__ = [
    "DEFAULT_DECODER",
    "DEFAULT_ENCODER",
    "DEFAULT_METHOD",
    "allowed_plugins",
    "api_key",
    "bypass",
    "downloads_allowed",
    "encoder_dtype",
    "home",
    "namespace",
    "secret",
    "service_keys",
    "store_url",
]

DEFAULT_METHOD = "recomp-mini"
DEFAULT_ENCODER = "all-minilm-l6-v2"
DEFAULT_DECODER = "smollm2-135m-instruct"
_TRUE = {"1", "true", "yes", "on"}


def _flag(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() in _TRUE


def home() -> Path:
    """The folder that holds converted models and the embedded store."""
    if chosen := os.environ.get("RAGPACK_HOME"):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "ragpack"


def store_url() -> str:
    """Where artifacts are kept unless a store is named."""
    return os.environ.get("RAGPACK_STORE") or f"lmdb://{home() / 'store'}"


def namespace() -> str:
    """The tenant wall unless one is named."""
    return os.environ.get("RAGPACK_NAMESPACE") or "default"


def secret() -> bytes | None:
    """Key of the authentication tag on stored frames; None means a plain checksum."""
    value = os.environ.get("RAGPACK_SECRET")
    return value.encode() if value else None


def encoder_dtype() -> Literal["float32", "bfloat16"]:
    """What encoders multiply in; part of the keys of all that comes of their vectors.

    Raises:
        ConfigError: it is neither of the two.
    """
    match os.environ.get("RAGPACK_ENCODER_DTYPE") or "float32":
        case "float32" | "bfloat16" as dtype:
            return dtype
        case other:
            raise ConfigError(f"RAGPACK_ENCODER_DTYPE is float32 or bfloat16, not {other!r}")


def bypass() -> bool:
    """Whether compression is switched off for every request."""
    return _flag("RAGPACK_BYPASS")


def downloads_allowed() -> bool:
    """Whether a model may be fetched from the hub."""
    return _flag("RAGPACK_DOWNLOAD")


def allowed_plugins() -> frozenset[str] | None:
    """Names of foreign plug-ins that may load; None means all."""
    value = os.environ.get("RAGPACK_PLUGINS")
    if value is None:
        return None
    return frozenset(name.strip() for name in value.split(",") if name.strip())


def api_key() -> str | None:
    """The bearer key that is sent to OpenAI-compatible decoders."""
    return os.environ.get("RAGPACK_API_KEY", "").strip() or None


def service_keys() -> str:
    """The bearer keys that the service takes, as ``name:sha256`` pairs; never the keys."""
    return os.environ.get("RAGPACK_KEYS", "").strip()
