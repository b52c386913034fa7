"""Text at its borders: bytes for digests, clean text for models.

Python strings may hold lone surrogates (half of a UTF-16 pair), which no tokenizer accepts. Both
functions are total, and :func:`model_text` keeps every character offset.
"""

import re

__all__ = ["model_text", "utf8"]

_SURROGATE = re.compile("[\ud800-\udfff]")


def utf8(text: str) -> bytes:
    """The UTF-8 bytes of ``text``; lone surrogates are kept apart instead of raising."""
    return text.encode("utf-8", "surrogatepass")


def model_text(text: str) -> str:
    """``text`` with each lone surrogate replaced by U+FFFD: same length, same offsets."""
    return _SURROGATE.sub("\ufffd", text)
