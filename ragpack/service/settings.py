"""Everything that an operator may set on the service; clients can set none of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragpack import config
from ragpack.service.keys import Key

__all__ = ["Limits", "Settings"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps that hold for every request, whoever sends it.

    ``body_seconds`` is the time in which a whole body must have arrived. ``passages``,
    ``query_characters`` and ``characters`` (of all passages together) hold for one question,
    ``batch`` is how many questions one call may ask. ``in_flight`` requests are under way at most,
    the next is turned away; ``threads`` of them compute at the same time. ``deadline_ms`` is the
    time after which passages that are not compressed are passed on as they are.
    """

    body_bytes: int = 8 * 1024 * 1024
    body_seconds: float = 15.0
    head_seconds: float = 10.0
    passages: int = 256
    characters: int = 2_000_000
    query_characters: int = 10_000
    batch: int = 64
    in_flight: int = 256
    threads: int = 32
    deadline_ms: float = 10_000.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How one service runs.

    ``methods`` are those offered, all registered ones unless given; ``method_settings`` are the
    settings of some, by name. ``indexes`` is a folder of ``NAMESPACE/NAME`` folders as ``ragpack
    index`` makes them; None offers none. Without ``keys`` everybody may call. ``batching`` lets
    requests share runs of an encoder, and ``encoder_process`` lets these run in a process of their
    own, which answers more requests and takes the memory of another torch and another encoder.
    ``recent_bytes`` of stored artifacts that were read in the
    last ``recent_seconds`` are kept decoded in the process.

    ``upstream`` is the base URL of the OpenAI-compatible server that answers chat requests, if any;
    ``upstream_key`` is the bearer key for it, and a piece of its answer may take
    ``upstream_seconds``.
    """

    store: str = field(default_factory=config.store_url)
    tokenizer: str = config.DEFAULT_DECODER
    encoder: str = config.DEFAULT_ENCODER
    methods: tuple[str, ...] | None = None
    method_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    indexes: Path | None = None
    keys: tuple[Key, ...] = ()
    batching: bool = True
    encoder_process: bool = True
    recent_bytes: int = 64 * 1024 * 1024
    recent_seconds: float = 300.0
    upstream: str | None = None
    upstream_key: str | None = field(default_factory=config.api_key, repr=False)
    upstream_seconds: float = 300.0
    limits: Limits = field(default_factory=Limits)
