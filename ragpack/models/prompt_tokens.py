"""The prompt as token ids, in three parts, so that a stored context can take the middle's place."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from jinja2 import TemplateError
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from ragpack.errors import HandoffError
from ragpack.models.prompt import SEPARATOR, parts
from ragpack.models.token_counter import plain_tokenizer
from ragpack.text import model_text
from ragpack.types import Span

__all__ = ["PromptTokenizer", "TextDecoder", "TokenPrompt"]

_MARK = "\ue000"
"""Stands for the user's message while a chat template is rendered; of the private use area."""


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """Token ids before the context, of the context, and after it (the question and the rest)."""

    prefix: list[int]
    context: list[int]
    suffix: list[int]

    @property
    def ids(self) -> list[int]:
        """The whole prompt."""
        return [*self.prefix, *self.context, *self.suffix]


class PromptTokenizer:
    """Makes prompts with a model's chat template, and text of its answers.

    Only the template may name special tokens: in a passage or a question ``<|im_end|>`` is text.
    Holds tokenizers of its own, because transformers' change their state between calls.

    Raises:
        HandoffError: the model has no fast tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, instruction: str) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise HandoffError(
                f"{tokenizer.name_or_path} has no fast tokenizer: ragpack needs its tokenizer.json"
            )
        self._template = tokenizer
        self._instruction = model_text(instruction)
        self._plain = plain_tokenizer(Tokenizer.from_str(backend.to_str()))
        self._markup = plain_tokenizer(Tokenizer.from_str(backend.to_str()))
        self._markup.encode_special_tokens = False

    def prompt(self, context: str, query: str) -> TokenPrompt:
        """The prompt's token ids; every part is encoded on its own."""
        head, tail = self._frame
        before, middle, after = parts(context, query)
        return TokenPrompt(
            prefix=head + self.encode(before),
            context=self.encode(middle),
            suffix=self.encode(after) + tail,
        )

    def after_separator(self, query: str) -> list[int]:
        """What follows a context whose last passage ends with the separator already."""
        suffix = self.prompt("x", query).suffix
        separator = self.encode_before_text(SEPARATOR)
        return suffix[len(separator) :] if suffix[: len(separator)] == separator else suffix

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text`` as it stands inside a prompt: nothing added, nothing special."""
        ids: list[int] = self._plain.encode(model_text(text), add_special_tokens=False).ids
        return ids

    def encode_before_text(self, text: str) -> list[int]:
        """Token ids of ``text`` as it stands in front of more text."""
        return [token for token, _ in self.tokens_before_text(text)]

    def tokens_before_text(self, text: str) -> list[tuple[int, Span]]:
        """The same with the characters that each token stands for.

        Tokenizers treat white space at an end as something else than white space before a word.
        """
        text = model_text(text)
        made = self._plain.encode(f"{text}x", add_special_tokens=False)
        pairs = zip(made.ids, made.offsets, strict=True)
        return [(token, span) for token, span in pairs if span[0] < len(text)]

    def decoder(self) -> "TextDecoder":
        """Turns one answer's tokens into text."""
        return TextDecoder(self._plain)

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        """Token ids before and after the user's message."""
        if self._template.chat_template:
            head, _, tail = self._rendered().partition(_MARK)
            return self._encode_markup(head), self._encode_markup(tail)
        always = self._markup.encode("").ids
        begin = always[:1] if always[:1] == [self._template.bos_token_id] else []
        return begin + self.encode(f"{self._instruction}\n\n"), self.encode("\nAnswer:\n")

    def _rendered(self) -> str:
        system = {"role": "system", "content": self._instruction}
        try:
            text = self._render([system, {"role": "user", "content": _MARK}])
            if self._instruction in text:
                return text
        except TemplateError:  # how a template says that it knows no system role
            pass
        return self._render([{"role": "user", "content": f"{self._instruction}\n\n{_MARK}"}])

    def _render(self, messages: Sequence[dict[str, str]]) -> str:
        text = self._template.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        )
        return str(text)

    def _encode_markup(self, text: str) -> list[int]:
        ids: list[int] = self._markup.encode(text, add_special_tokens=False).ids
        return ids


class TextDecoder:
    """Text of one answer, token by token; a character of several tokens comes out once, whole."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)

    def add(self, token: int) -> str:
        """The text that ``token`` completes, often empty in scripts of many bytes."""
        return self._stream.step(self._tokenizer, token) or ""
