"""Bearer keys: who may call, as which tenant, how often. Only their digests are kept anywhere.

A file of keys is TOML, one table a key; its name is what logs call the key by::

    [team-a]
    sha256 = "…"                     # printf %s "$KEY" | sha256sum
    namespace = "team-a"             # the table's name unless given
    rate = "50/second"               # requests; none unless given
    quota = "1000000/day"            # passages; none unless given
    expires = 2027-01-01T00:00:00Z   # never unless given

``RAGPACK_KEYS`` holds ``name:sha256`` pairs, separated by commas.
"""

import hmac
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from hashlib import sha256
from pathlib import Path
from typing import Any

from limits import RateLimitItem, parse

from ragpack.errors import ConfigError

__all__ = ["Key", "KeyRing", "keys_from_file", "keys_from_text"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_FIELDS = {"sha256", "namespace", "rate", "quota", "expires"}


@dataclass(frozen=True, slots=True)
class Key:
    """One key: the SHA-256 of it, and what its bearer may do."""

    name: str
    sha256: bytes
    namespace: str
    rate: RateLimitItem | None = None
    quota: RateLimitItem | None = None
    expires: datetime | None = None

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= datetime.now(UTC)


class KeyRing:
    """The keys of a service. Keys are long and random, so one round of SHA-256 hides them."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = tuple(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, bearer: str) -> Key | None:
        """The key that ``bearer`` is, in a time that does not tell how near a wrong one was."""
        digest = sha256(bearer.encode("utf-8", "surrogatepass")).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(digest, key.sha256):
                found = key
        return found


def keys_from_file(path: Path) -> list[Key]:
    """The keys of a TOML file.

    Raises:
        ConfigError: the file cannot be read, or a table of it is wrong.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the keys in {path} cannot be read: {error}") from error
    return [_key(name, fields) for name, fields in tables.items()]


def keys_from_text(text: str) -> list[Key]:
    """The keys of ``name:sha256`` pairs, separated by commas.

    Raises:
        ConfigError: a pair is wrong.
    """
    pairs = [pair.strip().partition(":") for pair in text.split(",") if pair.strip()]
    return [_key(name, {"sha256": digest}) for name, _, digest in pairs]


def _key(name: str, fields: Any) -> Key:
    if not isinstance(fields, dict) or set(fields) - _FIELDS:
        raise ConfigError(f"key {name!r} must be a table of {', '.join(sorted(_FIELDS))}")
    namespace = fields.get("namespace", name)
    for word in (name, namespace):
        if not isinstance(word, str) or not _NAME.fullmatch(word):
            raise ConfigError(f"{word!r} is no name for a key: a-z, 0-9, - and _, at most 64")
    return Key(
        name,
        _digest(name, fields.get("sha256")),
        namespace,
        _limit(name, fields.get("rate")),
        _limit(name, fields.get("quota")),
        _moment(name, fields.get("expires")),
    )


def _digest(name: str, value: Any) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise ConfigError(
            f"key {name!r} needs sha256, 64 hexadecimal digits: "
            "printf %s YOUR-KEY | sha256sum (the key itself is never written down)"
        )
    return bytes.fromhex(value)


def _limit(name: str, value: Any) -> RateLimitItem | None:
    if value is None:
        return None
    try:
        return parse(value)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"key {name!r}: {value!r} is no limit such as '50/second'") from error


def _moment(name: str, value: Any) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        raise ConfigError(f"key {name!r}: expires must be a date or a time, not {value!r}")
    return value if value.tzinfo else value.replace(tzinfo=UTC)
