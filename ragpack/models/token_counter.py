"""Counts tokens with the ``tokenizers`` library alone: no torch, no transformers."""

from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from itertools import islice
from pathlib import Path
from threading import Lock

from blake3 import blake3
from tokenizers import Tokenizer

from ragpack.errors import ConfigError
from ragpack.models.checkpoint import tokenizer_folder
from ragpack.models.files import resolve
from ragpack.text import model_text, utf8

__all__ = ["TokenizerCounter", "load_token_counter", "plain_tokenizer"]

_REMEMBERED = 100_000
"""Texts whose counts are kept, about 150 bytes each."""


def load_token_counter(name: str) -> "TokenizerCounter":
    """The counter of a decoder, by the decoder's name or path.

    Raises:
        ConfigError: no such model, or it has no tokenizer.json.
        MissingExtraError: the model's package, or what reads its GGUF, is not installed.
    """
    return TokenizerCounter(tokenizer_folder(resolve(name)) / "tokenizer.json")


class TokenizerCounter:
    """Counts as a decoder with this ``tokenizer.json`` will see a text inside its prompt.

    No special tokens are added, and the text of a special token counts as the text it is, because
    that is how ragpack hands passages on.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ConfigError(f"no tokenizer.json in {path.parent}: tokens cannot be counted")
        self._tokenizer = _read(path, path.stat().st_mtime_ns)
        self._remembered: dict[bytes, int] = {}
        self._lock = Lock()

    def apart(self) -> "TokenizerCounter":
        """The same tokenizer with a memory of its own.

        For tenants: in a shared memory, a text that another one has sent would be counted sooner.
        """
        other = copy(self)
        other._remembered, other._lock = {}, Lock()
        return other

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text; a lone surrogate counts as U+FFFD.

        Counts are remembered by the texts' digests: the same passages come again and again, and
        tokenizing them would take most of a warm request's time.
        """
        keys = [blake3(utf8(text)).digest() for text in texts]
        with self._lock:
            counts = {key: self._remembered[key] for key in keys if key in self._remembered}
        new = {k: model_text(t) for k, t in zip(keys, texts, strict=True) if k not in counts}
        encodings = self._tokenizer.encode_batch_fast(list(new.values()), add_special_tokens=False)
        fresh = {key: len(made.ids) for key, made in zip(new, encodings, strict=True)}
        self._remember(fresh)
        counts |= fresh
        return [counts[key] for key in keys]

    def _remember(self, counts: dict[bytes, int]) -> None:
        """Keep ``counts``, and let the oldest go."""
        with self._lock:
            self._remembered |= counts
            for key in list(islice(self._remembered, max(0, len(self._remembered) - _REMEMBERED))):
                del self._remembered[key]


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> Tokenizer:
    """The tokenizer of a file as it was last changed: reading one takes a fifth of a second."""
    return plain_tokenizer(Tokenizer.from_file(str(path)))


def plain_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """``tokenizer`` set to cut nothing, pad nothing and read special-token text as text."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer
