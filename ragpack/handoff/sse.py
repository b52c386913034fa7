"""Server-sent events of an OpenAI-compatible stream."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from ragpack.errors import HandoffError

__all__ = ["Events"]

_MAX_LINE = 1 << 20


class Events:
    """The JSON object of every ``data:`` line, up to ``[DONE]`` or the end of the stream.

    ``done`` tells, after them, whether ``[DONE]`` came.

    Raises:
        HandoffError: a line is no JSON object or longer than 1 MiB.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.done = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The objects, each as it comes."""
        for line in _lines(self._chunks):
            field, _, value = line.partition(b":")
            if field != b"data":
                continue
            if value.strip() == b"[DONE]":
                self.done = True
                return
            yield _object(value)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines ended by LF or CRLF; httpx would also break at U+2028, which JSON may hold raw."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.removesuffix(b"\r") for line in lines)
        if len(rest) > _MAX_LINE:
            raise HandoffError("the decoder's server sent a line of over 1 MiB")
    yield rest


def _object(value: bytes) -> dict[str, Any]:
    try:
        event = json.loads(value)
    except ValueError as error:
        raise HandoffError(f"the decoder's server sent no JSON: {value[:200]!r}") from error
    if not isinstance(event, dict):
        raise HandoffError(f"the decoder's server sent no JSON object: {value[:200]!r}")
    return event
