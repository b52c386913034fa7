import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import pytest

from ragpack import open_decoder
from ragpack.errors import ConfigError, HandoffError
from ragpack.handoff.openai import OpenAIDecoder
from ragpack.models.prompt import INSTRUCTION, messages
from ragpack.report import PackedContext, PackReport
from ragpack.types import EmbedsArtifact, Passage, Segment

CONTEXT, QUERY = "Ada wrote the first program.", "Who wrote it?"
Sse = Callable[..., bytes]


@pytest.fixture
def decoder(chat_server: Any) -> Iterator[OpenAIDecoder]:
    opened = OpenAIDecoder.from_url(f"openai://{chat_server.address}/v1?model=big", timeout=60.0)
    yield opened
    opened.close()


def test_answer_is_the_servers_with_its_counts(decoder: OpenAIDecoder) -> None:
    answer = decoder.generate(CONTEXT, QUERY)
    assert answer.text == "Ada Lovelace."
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (40, 2)
    assert 0 < answer.ttft_ms <= answer.total_ms


def test_stream_gives_the_pieces(decoder: OpenAIDecoder) -> None:
    assert list(decoder.stream(CONTEXT, QUERY)) == ["Ada ", "Lovelace."]


def test_request_is_greedy_streamed_and_holds_the_prompt(
    decoder: OpenAIDecoder, chat_server: Any
) -> None:
    decoder.generate(CONTEXT, QUERY, max_new_tokens=7, seed=3)
    assert chat_server.requests[0].body == {
        "model": "big",
        "messages": messages(CONTEXT, QUERY, INSTRUCTION),
        "max_tokens": 7,
        "temperature": 0,
        "seed": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_lone_surrogates_are_replaced(decoder: OpenAIDecoder, chat_server: Any) -> None:
    decoder.generate("a\ud800", "b\udfff")
    content = chat_server.requests[0].body["messages"][1]["content"]
    assert content == "Context:\na\ufffd\n\nQuestion: b\ufffd"


def test_saved_tokens_come_from_the_report(decoder: OpenAIDecoder) -> None:
    report = PackReport(method="m", tokens_in=90, tokens_out=30)
    answer = decoder.generate(PackedContext(QUERY, (), report), QUERY)
    assert answer.usage.context_tokens_saved == 60


def test_soft_tokens_sent_as_text_are_said_once(
    decoder: OpenAIDecoder, caplog: pytest.LogCaptureFixture
) -> None:
    passage = Passage("1", CONTEXT)
    soft = Segment(passage, ((0, len(CONTEXT)),), artifact=EmbedsArtifact(np.zeros((1, 4))))
    report = PackReport(method="refrag", tokens_in=6, tokens_out=1)
    for segments in [(Segment(passage, ((0, 3),)),), (soft,), (soft,)]:
        decoder.generate(PackedContext(QUERY, segments, report), QUERY)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 1
    assert said[0].startswith("refrag made soft tokens or KV")


@pytest.mark.parametrize("given", ["argument", "environment", None])
def test_key_is_sent_where_there_is_one(
    chat_server: Any, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.delenv("RAGPACK_API_KEY", raising=False)
    if given == "environment":
        monkeypatch.setenv("RAGPACK_API_KEY", "secret\n")
    settings = {"api_key": "secret"} if given == "argument" else {}
    opened = open_decoder(f"openai://{chat_server.address}/v1?model=big", **settings)
    opened.generate(CONTEXT, QUERY)
    opened.close()
    sent = chat_server.requests[0].headers.get("Authorization")
    assert sent == ("Bearer secret" if given else None)


def test_a_key_that_no_header_can_hold_is_refused_unsaid() -> None:
    with pytest.raises(ConfigError, match="API key") as caught:
        open_decoder("openai://localhost/v1?model=big", api_key="sécret\n")
    assert "cret" not in str(caught.value)


def test_a_vllm_server_is_asked_for_its_model(chat_server: Any) -> None:
    chat_server.models(b'{"data": [{"id": "small"}]}')
    opened = open_decoder(f"vllm://{chat_server.address}")
    assert opened.generate(CONTEXT, QUERY).text == "Ada Lovelace."
    opened.generate(CONTEXT, QUERY)
    opened.close()
    paths = [request.path for request in chat_server.requests]
    assert paths == ["/v1/models", "/v1/chat/completions", "/v1/chat/completions"]
    assert chat_server.requests[1].body["model"] == "small"


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (b'{"data": [{"id": "a"}, {"id": "b"}]}', r"lists 2 models \(a, b\)"),
        (b'{"data": []}', "lists 0 models"),
        (b'{"data": [7]}', "does not answer as an OpenAI server does"),
        (b"<html>", "does not answer as an OpenAI server does"),
    ],
)
def test_without_one_model_a_name_is_asked_for(
    chat_server: Any, listed: bytes, message: str
) -> None:
    chat_server.models(listed)
    opened = open_decoder(f"vllm://{chat_server.address}")
    with pytest.raises(HandoffError, match=message):
        opened.generate(CONTEXT, QUERY)
    opened.close()


def test_characters_survive_any_cut_of_the_stream(
    decoder: OpenAIDecoder, chat_server: Any, sse: Sse
) -> None:
    text = "line\u2028next\u0085 文字 👩‍👩‍👧"
    whole = b": comment\r\n" + sse(text).replace(b"\n", b"\r\n")
    whole += sse(choice={"finish_reason": "length"})
    chat_server.chat(whole[i : i + 1] for i in range(len(whole)))
    assert decoder.generate(CONTEXT, QUERY).text == text


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "too long"),
        (401, "set RAGPACK_API_KEY"),
        (403, "may not use this model"),
        (404, "check the base URL"),
        (429, r"\}\} \(it is busy; ask again later\)"),
        (500, "answered 500"),
        (307, "answered 307"),
    ],
)
def test_a_refusal_says_what_the_server_said_and_what_to_do(
    decoder: OpenAIDecoder, chat_server: Any, status: int, advice: str
) -> None:
    chat_server.chat([b'{"error": {"message": "too long"}}'], status=status)
    with pytest.raises(HandoffError, match=advice) as caught:
        decoder.generate(CONTEXT, QUERY)
    assert "too long" in str(caught.value)


def test_no_server_is_a_handoff_error() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        opened = open_decoder(f"openai://127.0.0.1:{port}/v1?model=big")
        with pytest.raises(HandoffError, match=r"no decoder at .* is the server running"):
            opened.generate(CONTEXT, QUERY)
        opened.close()


def test_a_server_that_hangs_is_left(chat_server: Any, sse: Sse) -> None:
    released = Event()

    def slow() -> Iterator[bytes]:
        yield sse("Ada ")
        released.wait(300)

    chat_server.chat(slow())
    opened = open_decoder(f"openai://{chat_server.address}/v1?model=big", timeout=3)
    try:
        pieces = opened.stream(CONTEXT, QUERY)
        assert next(pieces) == "Ada "
        with pytest.raises(HandoffError, match=r"gave nothing for 3 s.*raise timeout="):
            next(pieces)
    finally:
        released.set()
        opened.close()


def test_a_caller_who_stops_ends_the_request(
    decoder: OpenAIDecoder, chat_server: Any, sse: Sse, until: Callable[..., None]
) -> None:
    def endless() -> Iterator[bytes]:
        while not chat_server.hung_up:
            yield sse("more ")

    chat_server.chat(endless())
    pieces = decoder.stream(CONTEXT, QUERY)
    assert next(pieces) == "more "
    pieces.close()
    until(lambda: chat_server.hung_up)


@pytest.mark.parametrize(
    "end",
    [b"data: [DONE]\n\n", b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'],
    ids=["[DONE] alone", "finish_reason alone"],
)
def test_either_sign_of_the_end_makes_a_stream_whole(
    decoder: OpenAIDecoder, chat_server: Any, sse: Sse, end: bytes
) -> None:
    chat_server.chat([sse("Ada ", choice={"finish_reason": None}), sse("Lovelace."), end])
    assert decoder.generate(CONTEXT, QUERY).text == "Ada Lovelace."


BREAKS = {
    "no end": ([b'data: {"choices": [{"delta": {"content": "A"}}]}\n\n'], {}, "before the answer"),
    "not all bytes": ([b"data: "], {"length": 99}, "broke off"),
    "nothing": ([], {}, "before the answer"),
    "not JSON": ([b"data: {oops\n\n"], {}, "sent no JSON: b' {oops'"),
    "not an object": ([b"data: [1]\n\n"], {}, "no JSON object"),
    "an endless line": ([b"data: ", b"x" * (1 << 21)], {}, "over 1 MiB"),
    "an error": ([b'data: {"error": {"message": "CUDA"}}\n\n'], {}, "gave up: .*CUDA"),
    "a web page": ([b"<html>\n</html>\n"], {}, "before the answer"),
    "odd choices": ([b'data: {"choices": [null], "usage": 3}\n\n'], {}, "before the answer"),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_broken_stream_is_a_handoff_error(
    decoder: OpenAIDecoder, chat_server: Any, case: str
) -> None:
    chunks, fields, message = BREAKS[case]
    chat_server.chat(chunks, **fields)
    with pytest.raises(HandoffError, match=message):
        decoder.generate(CONTEXT, QUERY)


def test_threads_share_a_decoder(decoder: OpenAIDecoder) -> None:
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(decoder.generate, CONTEXT, QUERY) for _ in range(24)]
        assert {job.result().text for job in jobs} == {"Ada Lovelace."}


def test_scoring_is_refused_with_the_way_to_do_it(decoder: OpenAIDecoder) -> None:
    with pytest.raises(HandoffError, match=r"open_decoder\('<name or path>'\)"):
        decoder.score(CONTEXT, QUERY, "Ada")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("openai://", "no host"),
        ("openai:///v1?model=a", "no host"),
        ("openai://host:99999/v1", "no host or a wrong port"),
        ("openai://[oops/v1", "no host or a wrong port"),
        ("ftp://host", "expected a model's name or path, or openai://"),
    ],
)
def test_a_url_that_names_no_decoder_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_decoder(url)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("openai://host:8000/v1?model=a", "http://host:8000/v1"),
        ("openai://host:8000", "http://host:8000/v1"),
        ("openai+https://api.host/other/v2/?model=a", "https://api.host/other/v2"),
        ("vllm://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_url_becomes_the_base_url(url: str, base: str) -> None:
    opened = OpenAIDecoder.from_url(url)
    assert opened._client.base_url == base
    opened.close()
