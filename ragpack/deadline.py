"""A point in time after which a request goes on without what it was waiting for."""

import time
from collections.abc import Callable
from concurrent.futures import Executor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar

from ragpack.errors import CompressionTimeout

__all__ = ["Deadline"]

T = TypeVar("T")
A = TypeVar("A")


class Deadline:
    """``milliseconds`` from now; None never comes."""

    def __init__(self, milliseconds: float | None) -> None:
        self.milliseconds = milliseconds
        self._end = None if milliseconds is None else time.monotonic() + milliseconds / 1000.0

    @property
    def endless(self) -> bool:
        """Whether there is no deadline."""
        return self._end is None

    def left(self) -> float | None:
        """Seconds left, at least 0; None without a deadline."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def run(self, executor: Executor, function: Callable[[A], T], argument: A) -> T:
        """Call ``function``; with a deadline in another thread, which is left behind if late.

        Raises:
            CompressionTimeout: the deadline came first.
        """
        if self.endless:
            return function(argument)
        try:
            return executor.submit(function, argument).result(self.left())
        except FutureTimeout as error:
            raise CompressionTimeout(f"no answer within {self.milliseconds:g} ms") from error
