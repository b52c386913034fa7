"""Counts tokens as a LangChain model does."""

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseLanguageModel

__all__ = ["ModelTokens"]


class ModelTokens:
    """A :class:`ragpack.protocols.TokenCounter`: ``ContextPacker(tokenizer=ModelTokens(model))``.

    As exact as the model's own ``get_num_tokens``. LangChain's default for models that bring none
    is GPT-2's tokenizer, which has to be downloaded and counts for no other model; name a tokenizer
    to ``ContextPacker`` instead.
    """

    def __init__(self, model: BaseLanguageModel[Any]) -> None:
        self._model = model

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return [self._model.get_num_tokens(text) for text in texts]
