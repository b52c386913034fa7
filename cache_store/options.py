"""Settings of a store, written as the query part of its URL."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from ragpack.errors import ConfigError

__all__ = ["Parsers", "parse_bytes", "parse_count", "parse_seconds", "split_url"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
Parsers = Mapping[str, Callable[[str], Any]]
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def split_url(url: str, parsers: Parsers) -> tuple[str, dict[str, Any]]:
    """The URL without its query, and the settings in it, each read by the parser of its name.

    Raises:
        ConfigError: a setting is unknown or cannot be read.
    """
    address, _, query = url.partition("?")
    settings: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in parsers:
            known = ", ".join(sorted(parsers))
            raise ConfigError(f"the store URL has an unknown setting {name!r}; known: {known}")
        try:
            settings[name] = parsers[name](value)
        except ValueError as error:
            raise ConfigError(f"the store URL's setting {name}={value}: {error}") from error
    return address, settings


def parse_bytes(text: str) -> int:
    """``1500``, ``64MB`` (powers of 1000) or ``64MiB`` (powers of 1024)."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError("must be a size such as 500MB or 10GiB")
    number, unit, binary = match.groups()
    size = int(float(number) * (1024 if binary else 1000) ** _POWER[unit.lower()])
    return parse_count(str(size))


def parse_count(text: str) -> int:
    """A whole number above zero."""
    if int(text) < 1:
        raise ValueError("must be at least 1")
    return int(text)


def parse_seconds(text: str) -> float:
    """A number of seconds above zero."""
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError("must be above 0")
    return seconds
