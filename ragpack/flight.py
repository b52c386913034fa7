"""Single flight: what several threads ask for at the same time is computed by one of them."""

import threading
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["SingleFlight"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """Hands out one future a key, and tells each caller which keys are its own to compute."""

    def __init__(self) -> None:
        self._flights: dict[K, Future[T]] = {}
        self._lock = threading.Lock()

    def join(self, keys: Sequence[K]) -> tuple[list[Future[T]], list[K]]:
        """A future for each key, in order, and the keys that nobody was computing until now."""
        own: list[K] = []
        with self._lock:
            for key in keys:
                if key not in self._flights:
                    self._flights[key] = Future()
                    own.append(key)
            return [self._flights[key] for key in keys], own

    def land(self, key: K, outcome: T | Exception) -> None:
        """Give everyone who waits for ``key`` its outcome, once; later callers start afresh."""
        with self._lock:
            flight = self._flights.pop(key, None)
        if flight is None:
            return
        if isinstance(outcome, Exception):
            flight.set_exception(outcome)
        else:
            flight.set_result(outcome)
