"""Reads ahead of the work, in a thread."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["read_ahead"]

T = TypeVar("T")


def read_ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The same items, up to ``depth`` of them read before they are asked for."""
    end = object()
    iterator = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="ragpack-read-ahead") as reader:
        waiting = deque(reader.submit(next, iterator, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(reader.submit(next, iterator, end))
            yield item  # type: ignore[misc]  # whatever is not the end came from the iterator
