"""Models by name: where their files lie, what is in them, and how they are loaded.

Names load on first use: importing ``ragpack.models`` imports neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ragpack.models.digests import tokenizer_digest, weights_digest
from ragpack.models.files import SHIPPED_ADAPTER, ModelFiles, names, resolve

if TYPE_CHECKING:
    from ragpack.models.causal_lm import load_causal_lm
    from ragpack.models.checkpoint import checkpoint_folder
    from ragpack.models.encoder import SentenceEncoder, load_encoder
    from ragpack.models.seq2seq import Seq2Seq, load_seq2seq
    from ragpack.models.token_classifier import TokenClassifier, load_token_classifier
    from ragpack.models.token_counter import TokenizerCounter, load_token_counter

__all__ = [
    "SHIPPED_ADAPTER",
    "ModelFiles",
    "SentenceEncoder",
    "Seq2Seq",
    "TokenClassifier",
    "TokenizerCounter",
    "checkpoint_folder",
    "load_causal_lm",
    "load_encoder",
    "load_seq2seq",
    "load_token_classifier",
    "load_token_counter",
    "names",
    "resolve",
    "tokenizer_digest",
    "weights_digest",
]

_LAZY = {
    "SentenceEncoder": "encoder",
    "Seq2Seq": "seq2seq",
    "TokenClassifier": "token_classifier",
    "TokenizerCounter": "token_counter",
    "checkpoint_folder": "checkpoint",
    "load_causal_lm": "causal_lm",
    "load_encoder": "encoder",
    "load_seq2seq": "seq2seq",
    "load_token_classifier": "token_classifier",
    "load_token_counter": "token_counter",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
