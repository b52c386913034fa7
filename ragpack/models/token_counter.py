"""Counts tokens with the ``tokenizers`` library alone: no torch, no transformers."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from ragpack.errors import ConfigError
from ragpack.models.checkpoint import checkpoint_folder
from ragpack.models.files import resolve
from ragpack.text import model_text

__all__ = ["TokenizerCounter", "load_token_counter", "plain_tokenizer"]


def load_token_counter(name: str) -> "TokenizerCounter":
    """The counter of a decoder, by the decoder's name or path.

    Raises:
        ConfigError: no such model, or it has no tokenizer.json.
        MissingExtraError: the model's package, or what reads its GGUF, is not installed.
    """
    return TokenizerCounter(checkpoint_folder(resolve(name)) / "tokenizer.json")


class TokenizerCounter:
    """Counts as a decoder with this ``tokenizer.json`` will see a text inside its prompt.

    No special tokens are added, and the text of a special token counts as the text it is, because
    that is how ragpack hands passages on.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ConfigError(f"no tokenizer.json in {path.parent}: tokens cannot be counted")
        self._tokenizer = plain_tokenizer(Tokenizer.from_file(str(path)))

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text; a lone surrogate counts as U+FFFD."""
        clean = [model_text(text) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(clean, add_special_tokens=False)
        return [len(encoding.ids) for encoding in encodings]


def plain_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """``tokenizer`` set to cut nothing, pad nothing and read special-token text as text."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer
