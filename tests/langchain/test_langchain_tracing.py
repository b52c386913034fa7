"""What a trace shows: the retriever, the inner one and the compression, each as its own run."""

import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from opentelemetry import trace

from ragpack.retrievers.langchain import PackedRetriever, RagpackCompressor

NOTES = [Document("Apples keep. Rain fell.", id="1"), Document("Rain again.", id="2")]


class Recorder(BaseCallbackHandler):
    """The runs, with their parents' names, as they start and end."""

    def __init__(self) -> None:
        self.names: dict[UUID | None, str] = {None: ""}
        self.log: list[tuple[str, str, str]] = []
        self.reports: list[dict[str, Any]] = []

    def _start(self, name: str, run_id: UUID, parent_run_id: UUID | None) -> None:
        self.names[run_id] = name
        self.log.append(("start", name, self.names[parent_run_id]))

    def on_retriever_start(self, serialized, query, *, run_id, parent_run_id, name, **kwargs):
        self._start(name, run_id, parent_run_id)

    def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id, name, **kwargs):
        self._start(name, run_id, parent_run_id)
        self.inputs = inputs

    def on_retriever_end(self, documents, *, run_id, **kwargs):
        self.log.append(("end", self.names[run_id], str(len(documents))))

    def on_chain_end(self, outputs, *, run_id, **kwargs):
        self.log.append(("end", self.names[run_id], str(len(outputs))))

    def on_retriever_error(self, error, *, run_id, **kwargs):
        self.log.append(("error", self.names[run_id], type(error).__name__))

    def on_chain_error(self, error, *, run_id, **kwargs):
        self.log.append(("error", self.names[run_id], type(error).__name__))

    def on_custom_event(self, name, data, *, run_id, **kwargs):
        assert (name, self.names[run_id]) == ("ragpack.report", "ragpack.compress")
        self.reports.append(data)


async def run(retriever: BaseRetriever, call: str, *handlers: Recorder) -> list[Document]:
    """Invoke it as ``call`` says, with the question "Apples"."""
    config = RunnableConfig(callbacks=list(handlers), tags=["mine"])
    if call == "invoke":
        return retriever.invoke("Apples", config)
    return await retriever.ainvoke("Apples", config)


TREE = [
    ("start", "PackedRetriever", ""),
    ("start", "Shelf", "PackedRetriever"),
    ("end", "Shelf", "2"),
    ("start", "ragpack.compress", "PackedRetriever"),
    ("end", "ragpack.compress", "1"),
    ("end", "PackedRetriever", "1"),
]


@pytest.mark.parametrize("call", ["invoke", "ainvoke"])
async def test_retriever_inner_one_and_compression_are_runs(call, shelf, make_packer, keyword):
    packed = PackedRetriever(base=shelf(documents=NOTES), packer=make_packer(keyword))
    recorder = Recorder()
    await run(packed, call, recorder)
    assert recorder.log == TREE
    assert recorder.inputs == {"query": "Apples", "documents": NOTES}
    (report,) = recorder.reports
    assert report["context"] == "Apples keep."
    assert [row["id"] for row in report["passages"]] == ["1", "2"]
    assert report["passages"][1]["reason"] == "nothing relevant"


@pytest.mark.parametrize("call", ["invoke", "ainvoke"])
async def test_a_compressor_has_a_run_of_its_own(call, shelf, make_packer, keyword):
    chain = ContextualCompressionRetriever(
        base_retriever=shelf(documents=NOTES),
        base_compressor=RagpackCompressor(packer=make_packer(keyword)),
    )
    recorder = Recorder()
    documents = await run(chain, call, recorder)
    renamed = {"PackedRetriever": "ContextualCompressionRetriever"}
    assert recorder.log == [tuple(renamed.get(word, word) for word in line) for line in TREE]
    assert [document.page_content for document in documents] == ["Apples keep."]


def test_a_compressor_is_a_stage_of_a_pipeline(shelf, make_packer, keyword):
    stages = DocumentCompressorPipeline(
        transformers=[
            RagpackCompressor(packer=make_packer(keyword)),
            RagpackCompressor(packer=make_packer(), budget=5),
        ]
    )
    recorder = Recorder()
    documents = stages.compress_documents(NOTES, "Apples", callbacks=[recorder])
    assert [document.page_content for document in documents] == ["Apples keep."]
    assert [name for what, name, _ in recorder.log if what == "start"] == ["ragpack.compress"] * 2


class Down(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        raise ConnectionRefusedError("the index is away")


def test_an_error_is_seen_where_it_happened(make_packer):
    recorder = Recorder()
    packed = PackedRetriever(base=Down(), packer=make_packer())
    with pytest.raises(ConnectionRefusedError):
        packed.invoke("?", {"callbacks": [recorder]})
    assert recorder.log[-2:] == [
        ("error", "Down", "ConnectionRefusedError"),
        ("error", "PackedRetriever", "ConnectionRefusedError"),
    ]


@pytest.mark.parametrize("call", ["invoke", "ainvoke"])
async def test_opentelemetry_spans(call, spans, shelf, make_packer, keyword):
    packed = PackedRetriever(base=shelf(documents=NOTES), packer=make_packer(keyword))
    with trace.get_tracer("app").start_as_current_span("request") as request:
        await run(packed, call)
    ours = request.get_span_context().trace_id
    found = [span for span in spans.get_finished_spans() if span.context.trace_id == ours]
    ended = {span.name: span for span in found}
    names = {span.context.span_id: name for name, span in ended.items()}
    parents = {name: names[span.parent.span_id] for name, span in ended.items() if span.parent}
    assert parents == {
        "ragpack.retrieve": "request",
        "ragpack.pack": "request",
        "ragpack.store": "ragpack.pack",
        "ragpack.compress": "ragpack.pack",
    }
    attributes = ended["ragpack.pack"].attributes
    assert attributes["ragpack.method"] == "keyword"
    assert attributes["ragpack.tokens_out"] < attributes["ragpack.tokens_in"]
    assert "Apples" not in str([dict(span.attributes) for span in ended.values()])


def test_without_opentelemetry_nothing_is_missed():
    code = """
import sys
sys.modules["opentelemetry"] = None
from ragpack.tracing import span
with span("pack", method="identity") as inside:
    assert inside is None
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
