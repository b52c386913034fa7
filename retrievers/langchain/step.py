"""The step between retriever and chain: documents in, packed documents out, as a run of its own.

LangChain fires no events for document compressors, so the step is a runnable: a trace shows it as a
child of the retriever, with its time. The account of each call, dropped passages included, goes
out as the custom event ``ragpack.report``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

from langchain_core.callbacks import CallbackManagerForChainRun, dispatch_custom_event
from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnableConfig

from ragpack.errors import ConfigError
from ragpack.protocols import Packer
from ragpack.report import PackReport
from ragpack.retrievers.langchain.documents import Packed, as_passages, packed_documents

__all__ = ["REPORT_EVENT", "PackInput", "PackStep", "at_least_one"]

REPORT_EVENT = "ragpack.report"


class PackInput(TypedDict):
    """What the step reads, and what a trace shows of it."""

    query: str
    documents: Sequence[Document]


class _Round(NamedTuple):
    """What one call to the packer gave."""

    packed: list[Packed]
    report: PackReport

    @property
    def budget_spent(self) -> bool:
        """Whether something was left out for want of budget."""
        return any(row.reason == "budget" for row in self.report.passages)


@dataclass(frozen=True, slots=True)
class PackStep(Runnable[PackInput, list[Document]]):
    """Packs documents; asynchronously in a worker thread, as runnables do by default.

    Args:
        packer: does the work; deadline, store and fallbacks are its own.
        budget: most tokens of all documents together; the packer's own where None.
        title_key: the metadata field that holds a document's title.
        k: how many documents to return. Where nothing of a document is kept, the next one waiting
            takes its place, until the budget is spent or none is left.
    """

    name = "ragpack.compress"

    packer: Packer
    budget: int | None = None
    title_key: str | None = None
    k: int | None = None

    def invoke(
        self, input: PackInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Document]:
        """The documents of which something is kept, in order."""
        return self._call_with_config(self._run, input, config, **kwargs)

    def _run(self, given: PackInput, run_manager: CallbackManagerForChainRun) -> list[Document]:
        query, documents = given["query"], given["documents"]
        if self.k is None:
            packed = self._round(query, documents, run_manager).packed
        else:
            packed = self._rounds(query, self._without_twins(documents), self.k, run_manager)
        return [one.document for one in packed]

    def _rounds(
        self, query: str, documents: list[Document], k: int, run: CallbackManagerForChainRun
    ) -> list[Packed]:
        """Pack the first ``k``, then others in place of those of which nothing was kept.

        A method may have kept nothing only because others were better, so documents get another
        chance for as long as there is progress.
        """
        place = {id(document): position for position, document in enumerate(documents)}
        waiting, packed, budgeted = documents, list[Packed](), False
        while waiting and (missing := k - len(_sources(packed))) > 0:
            again = _sources(packed) if budgeted else []  # a budget holds for all together
            batch = sorted(again + waiting[:missing], key=lambda one: place[id(one)])
            latest = self._round(query, batch, run)
            grown = latest.packed if budgeted else packed + latest.packed
            waiting = waiting[missing:]
            if len(grown) > len(packed):
                waiting += _rest(batch, latest.packed)
            packed, budgeted = grown, latest.report.budget is not None
            if latest.budget_spent:
                break
        return sorted(packed, key=lambda one: place[id(one.sources[0])])

    def _round(
        self, query: str, documents: Sequence[Document], run: CallbackManagerForChainRun
    ) -> _Round:
        passages = as_passages(documents, self.title_key)
        packed = self.packer.pack(query, passages, budget=self.budget)
        if run.handlers:  # a line for each passage is not written for nobody
            dispatch_custom_event(REPORT_EVENT, packed.to_dict())
        return _Round(packed_documents(documents, passages, packed), packed.report)

    def _without_twins(self, documents: Sequence[Document]) -> list[Document]:
        """The documents in order, each title and text once, so that a twin takes up no place."""
        first: dict[tuple[str, str], Document] = {}
        for passage, document in zip(
            as_passages(documents, self.title_key), documents, strict=True
        ):
            first.setdefault((passage.title, passage.text), document)
        return list(first.values())


def _sources(packed: Sequence[Packed]) -> list[Document]:
    return [source for one in packed for source in one.sources]


def _rest(documents: Sequence[Document], packed: Sequence[Packed]) -> list[Document]:
    """The documents of which nothing was kept."""
    kept = {id(source) for source in _sources(packed)}
    return [document for document in documents if id(document) not in kept]


def at_least_one(name: str, value: int | None) -> None:
    """Check a setting that may be None.

    Raises:
        ConfigError: ``value`` is below 1.
    """
    if value is not None and value < 1:
        raise ConfigError(f"{name} must be at least 1, not {value}")
