"""Lets a process fork only between two pieces of work of its threads.

A fork copies one thread and the memory of all: work that another thread had begun stays begun in
the child for ever, and what it had locked stays locked.
"""

import os
import threading
from collections.abc import Callable
from types import TracebackType

__all__ = ["ForkGate"]

_PATIENCE_S = 10.0


class ForkGate:
    """Guards work as a context manager, which threads may enter together; forks wait outside.

    Work must not begin other guarded work of the same gate.

    Args:
        in_child: called in the child after a fork that met no work under way.
    """

    def __init__(self, in_child: Callable[[], None]) -> None:
        self._in_child = in_child
        self._working = 0
        self._forking = False
        self._changed = threading.Condition(threading.Lock())
        os.register_at_fork(
            before=self._before, after_in_parent=self._open, after_in_child=self._begin_child
        )

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._forking)
            self._working += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._working -= 1
            self._changed.notify_all()

    def _before(self) -> None:
        """Let no work begin, wait for what is under way, and hold the lock over the fork."""
        self._changed.acquire()
        self._forking = True
        self._changed.wait_for(lambda: self._working == 0, _PATIENCE_S)

    def _open(self) -> None:
        self._forking = False
        self._changed.notify_all()
        self._changed.release()

    def _begin_child(self) -> None:
        idle = self._working == 0
        self._working = 0
        self._open()
        if idle:
            self._in_child()
