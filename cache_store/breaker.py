"""A circuit breaker: a server that is away costs one caller its timeout, not every caller."""

import threading
import time

from ragpack.errors import CacheUnavailable

__all__ = ["Breaker"]


class Breaker:
    """Turns callers away for a while after a failure, then lets one of them try again.

    Args:
        pause_s: seconds between two tries.
    """

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._failure: str | None = None
        self._next_try = 0.0
        self._lock = threading.Lock()

    def admit(self) -> None:
        """Pass, or be turned away; who passes says afterwards how it went.

        Raises:
            CacheUnavailable: the server failed a moment ago.
        """
        with self._lock:
            if self._failure is None:
                return
            now = time.monotonic()
            if now < self._next_try:
                raise CacheUnavailable(
                    f"{self._failure} (not asked again for {self._next_try - now:.1f} s)"
                )
            self._next_try = now + self._pause_s  # this caller tries, the others keep waiting

    def failed(self, failure: str) -> None:
        """The server did not answer."""
        with self._lock:
            self._failure = failure
            self._next_try = time.monotonic() + self._pause_s

    def answered(self) -> None:
        """The server is there."""
        with self._lock:
            self._failure = None
