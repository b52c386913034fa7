"""Well-known chains take the packed retriever in place of the plain one; nothing else changes."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from ragpack.retrievers.langchain import PackedRetriever

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUESTION = "Where is the head office?"
ANSWER = "Quay House in Port Ansel is the head office"

# What the chain hands to its model is the answer here, so that it can be looked at.
ECHO = RunnableLambda(lambda prompt: prompt.to_string())


@pytest.fixture(scope="module")
def chains() -> Any:
    return SimpleNamespace(**runpy.run_path(str(EXAMPLES / "langchain_chains.py")))


@pytest.fixture
def retrievers(vector_store, make_recomp) -> list[Any]:
    plain = vector_store.as_retriever()
    return [plain, PackedRetriever(base=plain, packer=make_recomp(budget=100))]


def compare(texts: list[str]) -> None:
    plain, packed = texts
    assert ANSWER in plain
    assert ANSWER in packed
    assert len(packed) < len(plain) / 2


def test_the_lcel_chain(chains, retrievers):
    compare([chains.lcel_chain(retriever, ECHO).invoke(QUESTION) for retriever in retrievers])


def test_the_retrieval_chain(chains, retrievers):
    results = [
        chains.retrieval_chain(retriever, ECHO).invoke({"input": QUESTION})
        for retriever in retrievers
    ]
    compare([result["answer"] for result in results])
    plain, packed = ([d.id for d in result["context"]] for result in results)
    assert packed == [ident for ident in plain if ident in packed]


async def test_the_graph(chains, retrievers):
    graphs = [chains.graph(retriever, ECHO) for retriever in retrievers]
    compare([graph.invoke({"input": QUESTION})["answer"] for graph in graphs])
    compare([(await graph.ainvoke({"input": QUESTION}))["answer"] for graph in graphs])


@pytest.mark.slow
def test_the_chains_answer_with_a_real_model(chains, capsys):
    chains.main()
    lcel, classic, graph, *documents = capsys.readouterr().out.splitlines()
    for line in (lcel, classic, graph):
        assert "6,200 euros" in line
    assert documents
    assert all("'cache': 'hit'" in line for line in documents)


@pytest.mark.slow
def test_the_kv_chain_answers_alike_from_the_store(capsys):
    runpy.run_path(str(EXAMPLES / "langchain_kv.py"), run_name="__main__")
    answer, first, again, second = capsys.readouterr().out.splitlines()
    assert answer == again == "The bank recovered 6,200 euros."
    assert float(first.split()[3]) > 0
    assert float(second.split()[3]) > 0
