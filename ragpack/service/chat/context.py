"""Where a packed context goes in a conversation: before the last question."""

from collections.abc import Mapping, Sequence
from typing import Any

from ragpack.errors import InputError
from ragpack.models.prompt import parts

__all__ = ["question_of", "with_context"]


def question_of(messages: Any) -> str:
    """The text of the user's last message.

    Raises:
        InputError: there is none.
    """
    return _text(messages[_last(messages)])


def with_context(messages: Sequence[Mapping[str, Any]], context: str) -> list[Mapping[str, Any]]:
    """The conversation with ``context`` before the user's last message; as it is for no context.

    The message keeps what it holds, images too.
    """
    if not context:
        return list(messages)
    place = _last(messages)
    lead, content = "".join(parts(context, "")), messages[place]["content"]
    if isinstance(content, str):
        content = lead + content
    else:
        content = [{"type": "text", "text": lead}, *content]
    return [*messages[:place], {**messages[place], "content": content}, *messages[place + 1 :]]


def _last(messages: Any) -> int:
    for place in range(len(messages) - 1, -1, -1) if isinstance(messages, list) else ():
        match messages[place]:
            case {"role": "user"} as said if _text(said):
                return place
    raise InputError("documents answer a question: the messages need one of the user with text")


def _text(message: Mapping[str, Any]) -> str:
    match message.get("content"):
        case str(text):
            return text
        case [*pieces]:
            texts = [piece.get("text") for piece in pieces if isinstance(piece, Mapping)]
            return "\n".join(text for text in texts if isinstance(text, str))
    return ""
