"""Soft tokens and KV through a LangChain chain: what the packer makes, the decoder gets."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.load import dumps
from langchain_core.messages import AIMessageChunk, convert_to_openai_messages
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from ragpack import ContextPacker
from ragpack.compressors.ape import Ape
from ragpack.compressors.kv_reuse import KvReuse
from ragpack.errors import ConfigError, InputError
from ragpack.handoff.hf import HFDecoder
from ragpack.handoff.langchain import ChatRagpack
from ragpack.protocols import Compressor
from ragpack.report import PackedContext
from ragpack.retrievers.langchain import ModelTokens, PackContext
from ragpack.types import KVArtifact, Passage

QUERY = "who?"
NOTES = [
    Document("the quick brown fox", id="a", metadata={"title": "fox"}),
    Document("the quick brown fox", id="b", metadata={"title": "fox"}),
    Document("a lazy dog", id="c"),
]


@pytest.fixture(scope="module")
def decoder(tiny_llama: Path) -> HFDecoder:
    return HFDecoder(str(tiny_llama), device="cpu", instruction="Answer.")


@pytest.fixture
def packer(tiny_llama: Path) -> Iterator[ContextPacker]:
    with ContextPacker("identity", store="memory://", tokenizer=str(tiny_llama)) as packer:
        yield packer


@pytest.fixture
def chat(decoder: HFDecoder) -> ChatRagpack:
    return ChatRagpack(decoder=decoder, max_tokens=20)


def chain(packer: ContextPacker, model: Any) -> Runnable[str, Any]:
    retriever = RunnableLambda(lambda query: NOTES)
    given = {"context": retriever, "question": RunnablePassthrough()}
    return given | PackContext(packer=packer, title_key="title") | model


def packed(packer: ContextPacker) -> PackedContext:
    return packer.pack(
        QUERY, [Passage("a", "the quick brown fox", "fox"), Passage("c", "a lazy dog")]
    )


async def test_a_chain_says_what_the_decoder_says(packer, decoder, chat):
    answer = decoder.generate(packed(packer), QUERY, max_new_tokens=20)
    message = chain(packer, chat).invoke(QUERY)
    assert message.content == answer.text != ""
    assert message.response_metadata["ttft_ms"] > 0
    assert message.usage_metadata["input_tokens"] == answer.usage.prompt_tokens
    assert message.usage_metadata["output_tokens"] == answer.usage.completion_tokens
    saved = message.usage_metadata["input_token_details"]["context_saved"]
    assert saved == packer.counter.count(["\n\nfox\nthe quick brown fox"])[0]
    texts = chain(packer, chat) | StrOutputParser()
    assert texts.invoke(QUERY) == await texts.ainvoke(QUERY) == answer.text
    assert "".join(texts.stream(QUERY)) == answer.text


async def test_a_stream_ends_with_the_account(packer, chat):
    whole = chain(packer, chat).invoke(QUERY)
    for chunks in (
        list(chain(packer, chat).stream(QUERY)),
        [chunk async for chunk in chain(packer, chat).astream(QUERY)],
    ):
        assert len(chunks) > 3
        joined = sum(chunks[1:], chunks[0])
        assert isinstance(joined, AIMessageChunk)
        assert joined.content == whole.content
        assert chunks[-1].usage_metadata == whole.usage_metadata
        assert joined.usage_metadata == whole.usage_metadata
        assert joined.response_metadata["total_ms"] >= joined.response_metadata["ttft_ms"] > 0


@pytest.fixture
def kv_packer(tiny_llama: Path) -> Iterator[Callable[[Compressor], ContextPacker]]:
    with ExitStack() as made:
        yield lambda method: made.enter_context(
            ContextPacker(method, store="memory://", tokenizer=str(tiny_llama))
        )


def test_stored_kv_goes_through_a_chain(tiny_llama, packer, kv_packer, decoder, chat, caplog):
    ape = kv_packer(Ape(str(tiny_llama), instruction="Answer."))
    context = packed(ape)
    caplog.clear()  # the first use checks the decoder, and says so
    assert all(isinstance(segment.artifact, KVArtifact) for segment in context.segments)
    said = chain(ape, chat).invoke(QUERY).content
    assert said == decoder.generate(context, QUERY, max_new_tokens=20).text
    assert said != chain(packer, chat).invoke(QUERY).content  # APE is no plain prompt
    assert not caplog.records


def test_kv_recomputed_whole_says_what_the_plain_prompt_says(
    tiny_llama, packer, kv_packer, chat, caplog
):
    method = KvReuse(str(tiny_llama), recompute=1, anchor=False, instruction="Answer.", dtype="f32")
    method.compress([], None)  # checks the decoder, and says so
    caplog.clear()
    said = chain(kv_packer(method), chat).invoke(QUERY).content
    assert said == chain(packer, chat).invoke(QUERY).content
    assert not caplog.records


def test_tensors_stay_out_of_traces(tiny_llama, kv_packer):
    prompt = chain(
        kv_packer(Ape(str(tiny_llama), instruction="Answer.")), RunnablePassthrough()
    ).invoke(QUERY)
    assert isinstance(prompt.packed.segments[0].artifact, KVArtifact)
    for written in (dumps(prompt), prompt.model_dump_json(), repr(prompt)):
        assert len(written) < 400


def test_any_other_chat_model_gets_the_text(packer):
    prompt = chain(packer, RunnablePassthrough()).invoke(QUERY)
    system, user = convert_to_openai_messages(prompt.to_messages())
    assert system["role"] == "system"
    assert user == {
        "role": "user",
        "content": f"Context:\n{packed(packer).text}\n\nQuestion: {QUERY}",
    }
    assert packed(packer).text in prompt.to_string()


def test_a_prompt_without_packed_context(decoder, chat):
    plain = decoder.generate("", "fox?", max_new_tokens=20).text
    assert chat.invoke("fox?").content == plain
    talk = [("human", "fox?"), ("ai", "dog"), ("human", "who?")]
    expected = decoder.generate("", "Human: fox?\nAI: dog\nHuman: who?", max_new_tokens=20).text
    assert chat.invoke(talk).content == expected


def test_limit_and_stop(packer, chat):
    whole = chain(packer, chat).invoke(QUERY).content
    assert len(chain(packer, chat.bind(max_tokens=2)).invoke(QUERY).content) < len(whole)
    stop = [whole[8:10], "never there"]
    before = whole[: whole.index(stop[0])]
    bound = chain(packer, chat.bind(stop=stop))
    assert bound.invoke(QUERY).content == before
    assert "".join(chunk.content for chunk in bound.stream(QUERY)) == before


def test_bad_input(packer, chat):
    with pytest.raises(ConfigError, match="takes max_tokens and stop, not temperature"):
        chat.invoke("?", temperature=1)
    with pytest.raises(InputError, match=r"\['question'\] in its input: \['context'\]"):
        PackContext(packer=packer).invoke({"context": NOTES})
    with pytest.raises(ConfigError, match="budget must be at least 1"):
        PackContext(packer=packer, budget=0)


class Recorder(BaseCallbackHandler):
    def __init__(self) -> None:
        self.runs: list[str] = []
        self.reports: list[dict[str, Any]] = []

    def on_chain_start(self, serialized, inputs, *, name, **kwargs):
        self.runs.append(name)

    def on_custom_event(self, name, data, **kwargs):
        self.reports.append(data)


def test_the_packers_step_is_a_run_with_its_report(packer, chat):
    recorder = Recorder()
    chain(packer, chat).invoke(QUERY, {"callbacks": [recorder]})
    assert recorder.runs[-1] == "PackContext"
    (report,) = recorder.reports
    assert report["passages"][1]["reason"] == "duplicate of a"


def test_a_budget_in_tokens_of_the_chat_model(chat, decoder):
    model = chat.model_copy(update={"custom_get_token_ids": decoder.prompts.encode})
    with ContextPacker("identity", store="memory://", tokenizer=ModelTokens(model)) as packer:
        context = packer.pack(QUERY, [Passage("a", "the quick brown fox. a lazy dog")], budget=40)
    assert context.report.tokens_out == len(decoder.prompts.encode(context.text))
