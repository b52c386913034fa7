"""The prompt, one for every decoder: an instruction, the context, the question.

As chat messages, and so through the chat template of a model that has one::

    system:  Answer the question ...
    user:    Context:
             <context>

             Question: <query>

A model without a chat template reads the same lines as plain text, ended by a line ``Answer:``.
With nothing in the context the user's message is the question line alone.
"""

from ragpack.report import PackedContext
from ragpack.text import model_text

__all__ = ["INSTRUCTION", "SEPARATOR", "context_text", "messages", "parts", "tokens_saved"]

INSTRUCTION = (
    "Answer the question from the context, in as few words as possible. "
    "If the context does not hold the answer, say so."
)


SEPARATOR = "\n\n"
"""What stands between two passages of a context, and between the last one and the question."""


def context_text(context: PackedContext | str) -> str:
    """The context as text that every tokenizer takes."""
    return model_text(context if isinstance(context, str) else context.text)


def tokens_saved(context: PackedContext | str) -> int:
    """Context tokens that packing saved against the passages as given."""
    if isinstance(context, str):
        return 0
    return context.report.tokens_in - context.report.tokens_out


def parts(context: str, query: str) -> tuple[str, str, str]:
    """What the user's message consists of: before the context, the context, after it.

    The seams are line ends, so that a tokenizer gives the parts the tokens it gives the whole.
    """
    question = f"Question: {model_text(query)}"
    return ("Context:\n", context, f"{SEPARATOR}{question}") if context else ("", "", question)


def messages(context: str, query: str, instruction: str) -> list[dict[str, str]]:
    """The prompt as chat messages."""
    return [
        {"role": "system", "content": instruction},
        {"role": "user", "content": "".join(parts(context, query))},
    ]
