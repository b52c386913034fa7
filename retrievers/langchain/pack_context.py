"""The packer as a link of a chain: documents and question in, prompt out."""

from collections.abc import Mapping
from typing import Any

from langchain_core.callbacks import CallbackManagerForChainRun, dispatch_custom_event
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import ConfigDict, InstanceOf

from ragpack.errors import InputError
from ragpack.models.prompt import INSTRUCTION
from ragpack.protocols import Packer
from ragpack.retrievers.langchain.documents import as_passages
from ragpack.retrievers.langchain.packed_prompt import PackedPrompt
from ragpack.retrievers.langchain.step import REPORT_EVENT
from ragpack.retrievers.refill import at_least_one

__all__ = ["PackContext"]


class PackContext(RunnableSerializable[Mapping[str, Any], PackedPrompt]):
    """Stands between retriever and model where the model is to get more than text.

    ``{"context": retriever, "question": RunnablePassthrough()} | PackContext(packer=packer) |
    model``. With ``ChatRagpack`` as the model, methods that make soft tokens or KV take effect;
    any other chat model gets the packed text.

    Args:
        packer: a :class:`ragpack.ContextPacker`.
        budget: most tokens of the context; the packer's own where None.
        title_key: the metadata field that holds a document's title.
        instruction: what a model other than ``ChatRagpack`` is told to do.
        context_key: where the input holds the documents.
        question_key: where the input holds the question.

    Raises:
        ConfigError: ``budget`` below 1.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    packer: InstanceOf[Packer]
    budget: int | None = None
    title_key: str | None = None
    instruction: str = INSTRUCTION
    context_key: str = "context"
    question_key: str = "question"

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        at_least_one("budget", self.budget)  # a pydantic validator would hide the ConfigError

    def invoke(
        self, input: Mapping[str, Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> PackedPrompt:
        """The prompt of the input's documents and question, as a run of its own.

        Raises:
            InputError: the input lacks one of the two keys.
        """
        return self._call_with_config(self._pack, input, config, **kwargs)

    def _pack(
        self,
        given: Mapping[str, Any],
        run_manager: CallbackManagerForChainRun,
        config: RunnableConfig,
    ) -> PackedPrompt:
        missing = {self.context_key, self.question_key} - set(given)
        if missing:
            raise InputError(f"PackContext needs {sorted(missing)} in its input: {sorted(given)}")
        passages = as_passages(given[self.context_key], self.title_key)
        packed = self.packer.pack(given[self.question_key], passages, budget=self.budget)
        dispatch_custom_event(REPORT_EVENT, packed.to_dict(), config=config)
        return PackedPrompt(packed=packed, instruction=self.instruction)
