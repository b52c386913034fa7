"""A packed context on its way to a model, as LangChain's prompt."""

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage, get_buffer_string
from langchain_core.prompt_values import PromptValue
from pydantic import ConfigDict, Field, InstanceOf

from ragpack.models.prompt import INSTRUCTION, context_text, messages
from ragpack.report import PackedContext

__all__ = ["MESSAGE_KEY", "PackedPrompt"]

MESSAGE_KEY = "ragpack"
"""Where the question's ``additional_kwargs`` carry the packed context."""


class PackedPrompt(PromptValue):
    """The prompt for a packed context: text for any chat model, and the context itself beside it.

    Any chat model reads the messages. ``ChatRagpack`` takes the packed context that the last one
    carries, and so the soft tokens and KV in it. Serialised, as in a trace, a prompt is its text:
    tensors stay out.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    packed: InstanceOf[PackedContext] = Field(exclude=True, repr=False)
    instruction: str = INSTRUCTION

    def to_messages(self) -> list[BaseMessage]:
        """The instruction, then context and question."""
        system, user = messages(context_text(self.packed), self.packed.query, self.instruction)
        return [
            SystemMessage(system["content"]),
            HumanMessage(user["content"], additional_kwargs={MESSAGE_KEY: self.packed}),
        ]

    def to_string(self) -> str:
        """The messages as one text, for models that do not chat."""
        return get_buffer_string(self.to_messages())
