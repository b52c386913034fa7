"""Who sent a request."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Caller"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request: ``namespace`` is the wall around everything stored for it.

    ``charge`` takes a number of passages from the caller's quota and raises a Problem above it.
    ``facts`` go into the request's line of the log: numbers and names, never text.
    """

    name: str
    namespace: str
    charge: Callable[[int], None]
    facts: dict[str, Any] = field(default_factory=dict)
