"""The LlamaIndex adapters keep the contract of the LangChain ones."""

import copy

import pytest
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from ragpack.errors import InputError
from ragpack.retrievers.faiss import FaissRetriever
from ragpack.retrievers.llama_index import PackedPostprocessor, SearchRetriever
from ragpack.types import Passage

NODES = [
    NodeWithScore(
        node=TextNode(
            id_="1",
            text="Rain fell. Apples keep.",
            metadata={"page": 3},
            excluded_llm_metadata_keys=["page"],
        ),
        score=0.9,
    ),
    NodeWithScore(node=TextNode(id_="2", text="Rain again."), score=None),
    NodeWithScore(node=TextNode(id_="1", text="Apples are red."), score=0.5),
    NodeWithScore(node=TextNode(id_="3", text=""), score=0.1),
]


async def test_kept_text_with_order_ids_scores_and_metadata(make_packer, keyword):
    before = copy.deepcopy(NODES)
    packed = PackedPostprocessor(packer=make_packer(keyword))
    nodes = packed.postprocess_nodes(NODES, query_str="Apples")
    assert [(n.node_id, n.text, n.score) for n in nodes] == [
        ("1", "Apples keep.", 0.9),
        ("1", "Apples are red.", 0.5),
    ]
    account = nodes[0].metadata["ragpack"]
    assert account["kept"] == [[11, 23]]
    assert account["tokens_out"] < account["tokens_in"]
    assert nodes[0].metadata["page"] == 3
    assert nodes[0].node.get_content(MetadataMode.LLM) == "Apples keep."
    assert nodes[0].node.get_content(MetadataMode.EMBED) == "page: 3\n\nApples keep."
    assert before == NODES
    again = await packed.apostprocess_nodes(NODES, QueryBundle("Apples"))
    assert [node.text for node in again] == [node.text for node in nodes]


def test_the_budget_holds(handbook, make_recomp):
    nodes = [
        NodeWithScore(node=TextNode(text=d.page_content, metadata=d.metadata)) for d in handbook
    ]
    packed = PackedPostprocessor(packer=make_recomp(), budget=80, title_key="title")
    kept = packed.postprocess_nodes(nodes, query_str="Where is the head office?")
    joined = "\n\n".join(f"{node.metadata['title']}\n{node.text}" for node in kept)
    assert 40 < packed.packer.counter.count([joined])[0] <= 80


def test_bypass_and_a_missing_question(monkeypatch, make_packer):
    packed = PackedPostprocessor(packer=make_packer())
    with pytest.raises(InputError, match="pass query_str"):
        packed.postprocess_nodes(NODES)
    monkeypatch.setenv("RAGPACK_BYPASS", "1")
    assert packed.postprocess_nodes(NODES, query_str="?") == NODES


def test_a_ragpack_index_as_retriever(handbook, encoder):
    index = FaissRetriever(encoder)
    index.add([Passage(d.id, d.page_content, d.metadata["title"]) for d in handbook[:8]])
    nodes = SearchRetriever(index, similarity_top_k=3).retrieve("When was the company founded?")
    assert len(nodes) == 3
    assert nodes[0].node_id == "about-01"
    assert nodes[0].metadata["title"] == "How Corvane Instruments began"
    assert nodes[0].score > nodes[1].score
