"""A streamed answer, read to its end."""

from collections.abc import Generator

from ragpack.types import Answer

__all__ = ["whole"]


def whole(pieces: Generator[str, None, Answer]) -> Answer:
    """The answer that a decoder's stream returns when its pieces are all there."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            answer: Answer = end.value
            return answer
