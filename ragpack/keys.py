"""Keys: which artifact of which passage, made how, for which tenant.

A stored key reads ``<namespace>:<digest>``, both hexadecimal: the namespace's own digest first, so
that a tenant's entries can be dropped together, then 256 bits over every field.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ragpack.digest import digest_fields
from ragpack.errors import ConfigError
from ragpack.types import Fingerprint, Kind, Passage

__all__ = ["CacheKey", "make_key", "make_keys", "namespace_prefix", "query_digest"]

_NAMESPACE_DIGITS = 32


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Names one artifact; ``query`` is the query's digest for query-aware methods, else None."""

    namespace: str
    kind: Kind
    fingerprint: str
    passage: str
    query: str | None = None

    @property
    def digest(self) -> str:
        """256-bit digest of all fields; None and "" differ."""
        query = ("none",) if self.query is None else ("query", self.query)
        return digest_fields(
            "key", self.namespace, self.kind, self.fingerprint, self.passage, *query
        )

    def __str__(self) -> str:
        """The key under which a store keeps the entry."""
        return f"{namespace_prefix(self.namespace)}{self.digest}"


def namespace_prefix(namespace: str) -> str:
    """What every stored key of ``namespace`` starts with.

    Raises:
        ConfigError: the namespace is empty.
    """
    if not namespace:
        raise ConfigError("namespace must not be empty; leave it out for the default one")
    return f"{digest_fields('namespace', namespace)[:_NAMESPACE_DIGITS]}:"


def query_digest(query: str) -> str:
    """256-bit digest of the exact query."""
    return digest_fields("query", query)


def make_key(
    namespace: str,
    kind: Kind,
    fingerprint: Fingerprint,
    passage: Passage,
    query: str | None = None,
) -> CacheKey:
    """The key of ``passage`` under ``fingerprint``; pass ``query`` only for query-aware methods."""
    return make_keys(namespace, kind, fingerprint, [passage], query)[0]


def make_keys(
    namespace: str,
    kind: Kind,
    fingerprint: Fingerprint,
    passages: Sequence[Passage],
    query: str | None = None,
) -> list[CacheKey]:
    """:func:`make_key` for each passage; what they share is hashed once."""
    asked = None if query is None else query_digest(query)
    made_by = fingerprint.digest
    return [CacheKey(namespace, kind, made_by, passage.digest, asked) for passage in passages]
