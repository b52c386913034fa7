"""Text at its borders: bytes for digests, clean text for models, counts for people.

Python strings may hold lone surrogates (half of a UTF-16 pair), which no tokenizer accepts.
:func:`utf8` and :func:`model_text` are total, and the latter keeps every character offset.
"""

import re

__all__ = ["model_text", "plural", "utf8"]

_SURROGATE = re.compile("[\ud800-\udfff]")


def utf8(text: str) -> bytes:
    """The UTF-8 bytes of ``text``; lone surrogates are kept apart instead of raising."""
    return text.encode("utf-8", "surrogatepass")


def model_text(text: str) -> str:
    """``text`` with each lone surrogate replaced by U+FFFD: same length, same offsets."""
    return _SURROGATE.sub("\ufffd", text)


def plural(number: int, one: str, more: str | None = None) -> str:
    """``1 hit``, ``2 hits``, ``1,000 entries``: the plural ends in s unless it is given."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"
