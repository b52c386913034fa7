"""What LlamaIndex asks for beyond the contract that it shares with LangChain."""

import copy
from typing import Any

import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.indices import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, QueryBundle, TextNode

from ragpack.errors import ConfigError, InputError
from ragpack.models import SentenceEncoder
from ragpack.retrievers.faiss import FaissRetriever
from ragpack.retrievers.llama_index import PackedPostprocessor, PackedRetriever, SearchRetriever
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
    NodeWithScore(node=ImageNode(id_="1", text="Apples are red.", image_url="a.png"), score=0.5),
    NodeWithScore(node=TextNode(id_="3", text=""), score=0.1),
]


async def test_the_postprocessor_keeps_order_ids_scores_and_kinds(make_packer, keyword):
    before = copy.deepcopy(NODES)
    packed = PackedPostprocessor(packer=make_packer(keyword))
    nodes = packed.postprocess_nodes(NODES, query_str="Apples")
    assert [(n.node_id, n.text, n.score) for n in nodes] == [
        ("1", "Apples keep.", 0.9),
        ("1", "Apples are red.", 0.5),
    ]
    assert isinstance(nodes[1].node, ImageNode)
    assert nodes[1].node.image_url == "a.png"
    assert nodes[0].metadata["ragpack"]["kept"] == [[11, 23]]
    assert before == NODES
    again = await packed.apostprocess_nodes(NODES, QueryBundle("Apples"))
    assert [node.text for node in again] == [node.text for node in nodes]


def test_no_prompt_and_no_embedding_sees_the_account(make_packer, keyword):
    packed = PackedPostprocessor(packer=make_packer(keyword))
    node = packed.postprocess_nodes(NODES, query_str="Apples")[0]
    assert node.metadata["page"] == 3
    assert node.node.get_content(MetadataMode.LLM) == "Apples keep."
    assert node.node.get_content(MetadataMode.EMBED) == "page: 3\n\nApples keep."


def test_the_postprocessors_budget_holds(handbook, make_recomp):
    nodes = [
        NodeWithScore(node=TextNode(text=d.page_content, metadata=d.metadata)) for d in handbook
    ]
    packed = PackedPostprocessor(packer=make_recomp(), budget=80, title_key="title")
    kept = packed.postprocess_nodes(nodes, query_str="Where is the head office?")
    joined = "\n\n".join(f"{node.metadata['title']}\n{node.text}" for node in kept)
    assert 40 < packed.packer.counter.count([joined])[0] <= 80
    with pytest.raises(ConfigError, match="budget must be at least 1"):
        PackedPostprocessor(packer=make_recomp(), budget=0)


def test_bypass_and_a_missing_question(monkeypatch, make_packer):
    packed = PackedPostprocessor(packer=make_packer())
    with pytest.raises(InputError, match="pass query_str"):
        packed.postprocess_nodes(NODES)
    monkeypatch.setenv("RAGPACK_BYPASS", "1")
    assert packed.postprocess_nodes(NODES, query_str="?") == NODES


class Encoded(BaseEmbedding):
    """ragpack's encoder as LlamaIndex's embeddings."""

    encoder: Any

    def _get_text_embedding(self, text: str) -> list[float]:
        return self.encoder.encode([text])[0].tolist()

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


@pytest.fixture(scope="module")
def index(handbook, encoder: SentenceEncoder) -> VectorStoreIndex:
    nodes = [
        TextNode(id_=d.id, text=d.page_content, metadata={"title": d.metadata["title"]})
        for d in handbook[:20]
    ]
    return VectorStoreIndex(nodes, embed_model=Encoded(encoder=encoder))


async def test_a_vector_index_is_asked_for_more_and_gives_k(index, make_recomp):
    base = index.as_retriever(similarity_top_k=2)
    packer = make_recomp(top_n=1)  # of every round, one sentence of one node is kept
    packed = PackedRetriever(base, packer, k=5, title_key="title")
    nodes = packed.retrieve("Who founded the company?")
    ranked = [node.node_id for node in index.as_retriever(similarity_top_k=10).retrieve("Who?")]
    assert len(ranked) == 10
    assert len(nodes) == 5
    assert [node.score for node in nodes] == sorted((n.score for n in nodes), reverse=True)
    assert base.similarity_top_k == 2
    again = await packed.aretrieve("Who founded the company?")
    assert [node.text for node in again] == [node.text for node in nodes]


def test_a_query_engine_with_only_its_retriever_changed(index, make_recomp):
    question = "Where is the head office?"
    plain = index.as_retriever(similarity_top_k=6)
    packed = PackedRetriever(plain, make_recomp(budget=60))
    said = [
        str(RetrieverQueryEngine.from_args(one, llm=MockLLM()).query(question))
        for one in (plain, packed)
    ]
    assert all("Quay House in Port Ansel is the head office" in text for text in said)
    assert len(said[1]) < len(said[0]) / 2


class Down(BaseRetriever):
    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        raise ConnectionRefusedError("the index is away")


async def test_an_error_of_the_base_stays_its_own(make_packer):
    packed = PackedRetriever(Down(), make_packer(), k=3)
    with pytest.raises(ConnectionRefusedError, match="the index is away"):
        packed.retrieve("?")
    with pytest.raises(ConnectionRefusedError, match="the index is away"):
        await packed.aretrieve("?")


def test_a_ragpack_index_as_retriever_and_as_base(handbook, encoder, make_packer):
    index = FaissRetriever(encoder)
    index.add([Passage(d.id, d.page_content, d.metadata["title"]) for d in handbook[:8]])
    question = "When was the company founded?"
    nodes = SearchRetriever(index, similarity_top_k=3).retrieve(question)
    assert len(nodes) == 3
    assert nodes[0].node_id == "about-01"
    assert nodes[0].metadata["title"] == "How Corvane Instruments began"
    assert nodes[0].score > nodes[1].score
    packed = PackedRetriever(index, make_packer(), k=5, title_key="title").retrieve(question)
    assert [node.node_id for node in packed][:3] == [node.node_id for node in nodes]
    assert len(packed) == 5
