"""The drop-in: any retriever's documents, packed."""

from collections.abc import Mapping
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import ConfigDict, InstanceOf, field_validator

from ragpack import config
from ragpack.protocols import Packer, Retriever
from ragpack.retrievers.langchain.base import asking_for
from ragpack.retrievers.langchain.search_retriever import SearchRetriever
from ragpack.retrievers.langchain.step import PackInput, PackStep
from ragpack.retrievers.refill import at_least_one
from ragpack.tracing import span

__all__ = ["PackedRetriever"]


class PackedRetriever(BaseRetriever):
    """Wraps a retriever: the same documents, with the irrelevant parts left out.

    Order, ids and metadata stay; ``metadata["ragpack"]`` says what was kept, at what cost, and
    where it came from. Documents of which nothing is kept are left out. With ``RAGPACK_BYPASS=1``
    the base's documents come back untouched.

    Args:
        base: a LangChain retriever, or a ragpack one such as ``FaissRetriever``.
        packer: a :class:`ragpack.ContextPacker`; its deadline and fallbacks hold here too.
        k: how many documents to return; also an argument of ``invoke``. All that the base finds
            where None. Fewer come back only where the base has no more or the budget is spent.
        fetch_k: how many to ask the base for; twice ``k`` where None.
        budget: most tokens of all documents together, counted by the packer's tokenizer; also an
            argument of ``invoke``. The packer's own where None.
        title_key: the metadata field that holds a document's title, for methods that read titles.

    Raises:
        ConfigError: ``k``, ``fetch_k`` or ``budget`` below 1.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    base: InstanceOf[Runnable[str, list[Document]]]
    packer: InstanceOf[Packer]
    k: int | None = None
    fetch_k: int | None = None
    budget: int | None = None
    title_key: str | None = None

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        for name in ("k", "fetch_k", "budget"):  # a pydantic validator would hide the ConfigError
            at_least_one(name, getattr(self, name))

    @field_validator("base", mode="before")
    @classmethod
    def _as_runnable(cls, base: Any) -> Any:
        ours = isinstance(base, Retriever) and not isinstance(base, Runnable)
        return SearchRetriever(index=base) if ours else base

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        budget: int | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        step = self._step(k, budget)
        base, asked = self._asked(step)
        run = RunnableConfig(callbacks=run_manager.get_child())
        with span("retrieve"):
            documents = base.invoke(query, run, **{**kwargs, **asked})
        if config.bypass():
            return documents[: step.k]
        return step.invoke(PackInput(query=query, documents=documents), run)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        budget: int | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        step = self._step(k, budget)
        base, asked = self._asked(step)
        run = RunnableConfig(callbacks=run_manager.get_child())
        with span("retrieve"):
            documents = await base.ainvoke(query, run, **{**kwargs, **asked})
        if config.bypass():
            return documents[: step.k]
        return await step.ainvoke(PackInput(query=query, documents=documents), run)

    def _step(self, k: int | None, budget: int | None) -> PackStep:
        """The step for one call, whose arguments go before the retriever's own."""
        at_least_one("k", k)
        at_least_one("budget", budget)
        k = self.k if k is None else k
        budget = self.budget if budget is None else budget
        return PackStep(self.packer, budget, self.title_key, k)

    def _asked(self, step: PackStep) -> tuple[RetrieverLike, Mapping[str, Any]]:
        """The base and the keywords that make it find enough documents for the step."""
        if step.k is None:
            return self.base, {}
        return asking_for(self.base, max(step.k, self.fetch_k or 2 * step.k))
