"""The budget holds exactly, whichever tokenizer counts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from ragpack.models import TokenizerCounter, load_token_counter
from ragpack.protocols import TokenCounter
from ragpack.retrievers.langchain import PackedRetriever, RagpackCompressor

QUERY = "What may I bring to the laboratory?"


def trained(texts: list[str], folder: Path) -> TokenCounter:
    """A tokenizer of few words, which joins what others keep apart."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["\n\n".join(texts)], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return TokenizerCounter(folder / "tokenizer.json")


@pytest.fixture(scope="module", params=["smollm2-135m-instruct", "all-minilm-l6-v2", "trained"])
def counter(request: Any, handbook: list[Document], tmp_path_factory: Any) -> TokenCounter:
    if request.param != "trained":
        return load_token_counter(request.param)
    texts = [document.page_content for document in handbook]
    return trained(texts, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def tokens(counter: TokenCounter) -> Callable[[list[Document]], int]:
    def count(documents: list[Document]) -> int:
        return counter.count(["\n\n".join(d.page_content for d in documents)])[0]

    return count


@pytest.mark.parametrize("budget", [1, 17, 120, 350, 10_000])
@pytest.mark.parametrize("k", [None, 6])
def test_never_more_and_no_waste(budget, k, vector_store, make_recomp, counter, tokens):
    packer = make_recomp(tokenizer=counter, budget=budget)
    base = vector_store.as_retriever(search_kwargs={"k": 12})
    packed = PackedRetriever(base=base, packer=packer, k=k)
    documents = packed.invoke(QUERY)
    assert tokens(documents) <= budget
    if 100 < budget < 500:
        assert tokens(documents) > budget / 2
    for document in documents:
        account = document.metadata["ragpack"]
        assert account["tokens_out"] == tokens([document])
        assert account["tokens_in"] >= account["tokens_out"]


def test_with_room_enough_nothing_is_lost_and_k_is_kept(vector_store, make_packer, counter, tokens):
    base = vector_store.as_retriever(search_kwargs={"k": 12})
    plain = base.invoke(QUERY)
    packer = make_packer("identity", tokenizer=counter)
    packed = PackedRetriever(base=base, packer=packer, budget=tokens(plain))
    assert [d.page_content for d in packed.invoke(QUERY)] == [d.page_content for d in plain]
    assert len(packed.invoke(QUERY, k=5)) == 5


def test_the_calls_budget_goes_before_the_retrievers_and_the_packers(
    vector_store, make_recomp, counter, tokens
):
    packer = make_recomp(tokenizer=counter, budget=400)
    packed = PackedRetriever(base=vector_store.as_retriever(), packer=packer, budget=120)
    assert tokens(packed.invoke(QUERY, budget=60)) <= 60
    assert 60 < tokens(packed.invoke(QUERY)) <= 120
    wide = packed.model_copy(update={"budget": None})
    assert 120 < tokens(wide.invoke(QUERY)) <= 400


def test_a_dropping_method_refills_within_the_budget(shelf, make_packer, keyword, counter, tokens):
    notes = [
        Document(f"{'Apples' if number % 3 else 'Pears'} keep for {number} days. Rain fell.")
        for number in range(30)
    ]
    packer = make_packer(keyword, tokenizer=counter, budget=1000)
    packed = PackedRetriever(base=shelf(documents=notes), packer=packer, k=10)
    documents = packed.invoke("Apples")
    assert len(documents) == 10
    short = packed.invoke("Apples", budget=tokens(documents) // 2)
    assert tokens(short) <= tokens(documents) // 2
    assert 0 < len(short) < 10


def test_the_compressor_keeps_to_it_too(handbook, make_recomp, counter, tokens):
    compressor = RagpackCompressor(packer=make_recomp(tokenizer=counter), budget=90)
    assert 45 < tokens(list(compressor.compress_documents(handbook, QUERY))) <= 90
