"""The contract of the drop-in: which documents come back, what of them, and what is said of it."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.load import dumps
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField
from pydantic import Field, ValidationError

from ragpack.errors import ConfigError
from ragpack.retrievers.faiss import FaissRetriever
from ragpack.retrievers.langchain import PackedRetriever
from ragpack.types import Passage

NOTES = [
    Document("Apples keep. Pears do not.", id="1", metadata={"score": 0.9, "page": 3}),
    Document("Nothing about fruit here.", id="2"),
    Document("", id="3"),
    Document("An apple a day. Apples are red. Rain again.", id="4", metadata={"page": 7}),
    Document("Apples keep. Pears do not.", id="5"),
    Document("More Apples.", id="6"),
]


def contents(documents: list[Document]) -> list[str]:
    return [document.page_content for document in documents]


def ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


class Counting(BaseRetriever):
    """Remembers how many documents it was asked for, by whichever way it listens to."""

    asked: list[int]

    def find(self, count: Any) -> list[Document]:
        self.asked.append(count)
        return [Document(f"Apples {number}.") for number in range(count)]


class ByField(Counting):
    k: int = 2

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return self.find(self.k)


class BySearchKwargs(Counting):
    search_kwargs: dict[str, Any] = Field(default_factory=lambda: {"k": 2, "filter": "fruit"})

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        assert self.search_kwargs["filter"] == "fruit"
        return self.find(self.search_kwargs["k"])


class ByArgument(Counting):
    def _get_relevant_documents(
        self, query: str, *, run_manager: Any, k: int = 2, colour: str = "red"
    ) -> list[Document]:
        self.metadata = {"colour": colour}
        return self.find(k)


# What comes back


def test_score_and_strange_metadata_are_carried_and_nothing_is_changed(shelf, make_packer):
    odd = {"score": 0.5, "when": {1, 2}, 7: object(), "ragpack": "mine"}
    source = Document("Kept.", id=None, metadata=odd)
    before = copy.copy(source.metadata)
    retriever = PackedRetriever(base=shelf(documents=[source]), packer=make_packer())
    (document,) = retriever.invoke("?")
    assert source.metadata == before
    assert source.page_content == "Kept."
    assert document.id is None
    assert {**document.metadata, "ragpack": "mine"} == before
    assert document.metadata[7] is odd[7]


def test_the_title_is_read_from_metadata_and_stays_out_of_the_content(shelf, make_packer):
    documents = [
        Document("It is red.", metadata={"title": "The lighthouse"}),
        Document("It is blue.", metadata={"title": 7}),
    ]
    plain = PackedRetriever(base=shelf(documents=documents), packer=make_packer())
    titled = plain.model_copy(update={"title_key": "title"})
    first, second = titled.invoke("?")
    assert contents([first, second]) == ["It is red.", "It is blue."]
    without = plain.invoke("?")
    assert first.metadata["ragpack"]["tokens_in"] > without[0].metadata["ragpack"]["tokens_in"]
    assert second.metadata["ragpack"]["tokens_in"] == without[1].metadata["ragpack"]["tokens_in"]


def test_a_ragpack_index_is_a_base_too(handbook, encoder, make_packer):
    index = FaissRetriever(encoder)
    index.add([Passage(d.id, d.page_content, d.metadata["title"]) for d in handbook[:8]])
    packed = PackedRetriever(base=index, packer=make_packer(), k=3, title_key="title")
    documents = packed.invoke("When was the company founded?")
    assert len(documents) == 3
    assert documents[0].id == "about-01"
    assert documents[0].metadata["title"] == "How Corvane Instruments began"
    scores = [document.metadata["score"] for document in documents]
    assert scores == sorted(scores, reverse=True)


async def test_batches(vector_store, make_recomp):
    packed = PackedRetriever(base=vector_store.as_retriever(), packer=make_recomp(top_n=4), k=3)
    queries = [f"What about {word}?" for word in ("leave", "pay", "tools")]
    one_by_one = [contents(packed.invoke(query)) for query in queries]
    assert [contents(found) for found in packed.batch(queries)] == one_by_one
    assert [contents(found) for found in await packed.abatch(queries)] == one_by_one


# How many come back


def test_the_calls_k_goes_before_the_retrievers(shelf, make_packer, keyword):
    packed = PackedRetriever(base=shelf(documents=NOTES), packer=make_packer(keyword), k=2)
    assert ids(packed.invoke("Apples")) == ["1", "4"]
    assert ids(packed.invoke("Apples", k=3)) == ["1", "4", "6"]


def test_a_method_that_ranks_over_all_still_gives_k(vector_store, make_recomp):
    packer = make_recomp(top_n=2)
    packed = PackedRetriever(base=vector_store.as_retriever(), packer=packer)
    assert len(packed.invoke("Who founded the company?")) <= 2
    documents = packed.invoke("Who founded the company?", k=7)
    found = ids(packed.base.invoke("Who founded the company?", k=14))
    assert len(documents) == 7
    assert ids(documents) == [one for one in found if one in ids(documents)]


@pytest.mark.parametrize("base", [ByField, BySearchKwargs, ByArgument])
def test_every_kind_of_retriever_is_asked_for_more(base, make_packer):
    inner = base(asked=[])
    packed = PackedRetriever(base=inner, packer=make_packer())
    assert len(packed.invoke("?", k=5)) == 5
    assert len(packed.model_copy(update={"fetch_k": 30, "k": 5}).invoke("?")) == 5
    assert len(packed.invoke("?")) == 2
    assert inner.asked == [10, 30, 2]


def test_a_base_set_to_find_many_still_does(make_packer):
    inner = ByField(k=40, asked=[])
    assert len(PackedRetriever(base=inner, packer=make_packer(), k=3).invoke("?")) == 3
    assert inner.asked == [40]


def test_a_base_that_is_not_a_retriever_class(shelf, make_packer):
    base = shelf(documents=NOTES).with_config(tags=["mine"])
    assert ids(PackedRetriever(base=base, packer=make_packer(), k=1).invoke("?")) == ["1"]


def test_other_arguments_reach_the_base(make_packer):
    inner = ByArgument(asked=[])
    PackedRetriever(base=inner, packer=make_packer()).invoke("?", colour="green")
    assert inner.metadata == {"colour": "green"}


# Settings


@pytest.mark.parametrize("name", ["k", "budget"])
@pytest.mark.parametrize("value", [0, -3])
def test_a_call_may_not_ask_for_less_than_one(name, value, shelf, make_packer):
    packed = PackedRetriever(base=shelf(documents=NOTES), packer=make_packer())
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, not {value}"):
        packed.invoke("?", **{name: value})


def test_a_misspelt_setting_is_refused(shelf, make_packer):
    with pytest.raises(ValidationError, match="bugdet"):
        PackedRetriever(base=shelf(documents=[]), packer=make_packer(), bugdet=3)
    with pytest.raises(ValidationError, match="packer"):
        PackedRetriever(base=shelf(documents=[]), packer="identity")


def test_settings_may_be_left_to_the_call(shelf, make_packer):
    packed = PackedRetriever(base=shelf(documents=NOTES), packer=make_packer())
    open_k = packed.configurable_fields(k=ConfigurableField(id="k"))
    assert len(open_k.with_config(configurable={"k": 1}).invoke("?")) == 1
    assert len(open_k.invoke("?", {"configurable": {"k": 2}})) == 2
    assert len(open_k.invoke("?")) == 4


def test_langchain_can_describe_it(shelf, make_packer):
    packed = PackedRetriever(base=shelf(documents=NOTES), packer=make_packer(), k=2)
    assert "PackedRetriever" in dumps(packed)


def test_bypass_gives_what_the_base_gives(monkeypatch, shelf, make_packer, keyword):
    packed = PackedRetriever(base=shelf(documents=NOTES), packer=make_packer(keyword))
    monkeypatch.setenv("RAGPACK_BYPASS", "1")
    assert packed.invoke("Apples") == NOTES
    assert packed.invoke("Apples", k=3) == NOTES[:3]


# Bad luck


class Down(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        raise ConnectionRefusedError("the index is away")


async def test_an_error_of_the_base_stays_its_own(make_packer):
    packed = PackedRetriever(base=Down(), packer=make_packer(), k=3)
    with pytest.raises(ConnectionRefusedError, match="the index is away"):
        packed.invoke("?")
    with pytest.raises(ConnectionRefusedError, match="the index is away"):
        await packed.ainvoke("?")


# One thousand random documents and more

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80)
DOCUMENTS = st.builds(
    Document,
    TEXTS,
    id=st.none() | st.sampled_from(["a", "b", "a (2)"]) | st.text(max_size=3),
    metadata=st.dictionaries(
        st.text(max_size=3) | st.just("title"), st.none() | st.floats() | TEXTS, max_size=3
    ),
)


@settings(deadline=None)
@given(
    documents=st.lists(DOCUMENTS, min_size=5, max_size=25),
    which=st.sampled_from([0, 0, 0, 1]),
    k=st.none() | st.integers(1, 9),
    budget=st.none() | st.integers(1, 60),
)
def test_random_documents(shelf, packers, documents, which, k, budget):
    before = copy.deepcopy(documents)
    packed = PackedRetriever(
        base=shelf(documents=documents), packer=packers[which], k=k, budget=budget
    )
    result = packed.invoke("Who?")
    assert repr(documents) == repr(before)  # repr, since NaN is not equal to itself
    useful = {d.page_content for d in documents if d.page_content.strip()}
    if budget is None and (which == 0 or k is not None):
        assert len(result) == (len(useful) if k is None else min(k, len(useful)))
    left = iter(documents)
    for document in result:
        kept = document.metadata.pop("ragpack")["kept"]
        source = next(d for d in left if _made_of(document, d, kept))  # and so in order
        assert document.id == source.id
    if budget is not None:
        joined = "\n\n".join(contents(result))
        assert packers[which].counter.count([joined])[0] <= budget


def _made_of(document: Document, source: Document, kept: list[list[int]]) -> bool:
    parts = [source.page_content[start:end] for start, end in kept]
    same = repr(document.metadata) == repr(source.metadata) and document.id == source.id
    return same and document.page_content == " ".join(parts)
