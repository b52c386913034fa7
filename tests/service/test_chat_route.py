"""``POST /v1/chat/completions``: the openai package as client, real servers behind the service."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ragpack.errors import ConfigError
from ragpack.models import checkpoint_folder, resolve
from ragpack.service import Settings, create_app

QUESTION = "How long is the tank?"
SAID = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
DOCUMENTS = [
    {"title": "Port Ansel", "text": "Ferries leave at eight. The lighthouse was lit in 1871."},
    {"title": "Merrow Hill", "text": "It has six labs. The long tank is 38 metres."},
]
LEAN = {"ragpack": {"method": "recomp-extractive", "top_n": 1}}
PACKED = "Merrow Hill\nThe long tank is 38 metres."
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def piece(text: str, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None} | more
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"} | {
        "choices": [choice]
    }


class Upstream:
    """A server whose answers a test chooses by the name of the model."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.waits, self.hung_up = threading.Event(), threading.Event()
        app = Starlette(routes=[Route("/v1/chat/completions", self._answer, methods=["POST"])])
        config = uvicorn.Config(app, port=0, log_config=None)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"

    @property
    def asked(self) -> dict[str, Any]:
        return json.loads(self.bodies[-1])

    async def _answer(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        self.headers.append(dict(request.headers))
        return getattr(self, f"_{self.asked['model']}")(request)

    def _plain(self, request: Request) -> Response:
        message = {"role": "assistant", "content": "38 metres."}
        choices = [
            {"index": at, "message": message, "finish_reason": "stop", "logprobs": None}
            for at in range(self.asked.get("n", 1))
        ]
        return JSONResponse(
            {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
            | {"choices": choices, "usage": USAGE, "system_fingerprint": "fp_1"},
            headers={"X-Internal": "secret"},
        )

    def _tools(self, request: Request) -> Response:
        call = {"id": "t", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        weighed = {"content": [{"token": "38", "logprob": -0.125, "bytes": [51, 56]}]}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        return JSONResponse(
            {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
            | {"choices": [choice | {"logprobs": weighed}], "usage": USAGE}
        )

    def _stream(self, request: Request) -> Response:
        self.sent = b": hello\r\n\r\n" + event(piece("38 \u2028usage")) + event(piece(" metres."))
        self.sent += event(piece("", finish_reason="stop")) + b"data: [DONE]\n\n"
        middle = len(self.sent) // 2

        async def halves() -> AsyncIterator[bytes]:
            yield self.sent[:middle]
            if "stream_options" in self.asked:
                yield self.sent[middle:-14] + event(piece("") | {"choices": [], "usage": USAGE})
                yield self.sent[-14:]
            else:
                yield self.sent[middle:]

        return StreamingResponse(halves(), media_type="text/event-stream")

    def _refusing(self, request: Request) -> Response:
        body = {"error": {"message": "slow down", "type": "requests", "code": "rate_limit"}}
        return JSONResponse(body, 429, headers={"Retry-After": "7"})

    def _failing(self, request: Request) -> Response:
        return Response("<h1>out of order</h1>", 500, media_type="text/html")

    def _complaining(self, request: Request) -> Response:
        async def events() -> AsyncIterator[bytes]:
            yield event(piece("38"))
            yield event({"error": {"message": "the GPU fell over", "code": 500}})

        return StreamingResponse(events(), media_type="text/event-stream")

    def _breaking(self, request: Request) -> Response:
        async def events() -> AsyncIterator[bytes]:
            yield event(piece("38"))
            raise RuntimeError

        return StreamingResponse(events(), media_type="text/event-stream")

    def _endless(self, request: Request) -> Response:
        async def events() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield event(piece("on and on "))
                    await asyncio.sleep(0.01)
            finally:
                self.hung_up.set()

        return StreamingResponse(events(), media_type="text/event-stream")

    def _silent(self, request: Request) -> Response:
        upstream = self

        class Silent(Response):
            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                upstream.waits.set()
                assert (await receive())["type"] == "http.disconnect"
                upstream.hung_up.set()

        return Silent()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def proxy(start: Callable[..., Any], make_key: Any, upstream: Upstream) -> Any:
    return start(
        upstream=upstream.url,
        upstream_key="upstream-key",
        upstream_seconds=600.0,
        keys=(make_key("team", "secret"),),
    )


@pytest.fixture
def client(proxy: Any, upstream: Upstream) -> Iterator[openai.OpenAI]:
    upstream.waits.clear()
    upstream.hung_up.clear()
    with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="secret", max_retries=0) as client:
        yield client


def post(proxy: Any, body: Any, **more: Any) -> httpx.Response:
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    headers = {"Authorization": "Bearer secret", "Content-Type": "application/json"}
    return proxy.client.post("/v1/chat/completions", headers=headers | more, **sent)


# Documents


def test_documents_are_packed_before_the_question(client, upstream):
    answer = client.chat.completions.create(
        model="plain", messages=SAID, seed=7, extra_body={"documents": DOCUMENTS, **LEAN}
    )
    assert answer.choices[0].message.content == "38 metres."
    context = f"Context:\n{PACKED}\n\nQuestion: {QUESTION}"
    assert upstream.asked == {
        "model": "plain",
        "messages": [SAID[0], {"role": "user", "content": context}],
        "seed": 7,
    }
    report = answer.ragpack["report"]
    assert answer.usage.context_tokens_saved == report["tokens_in"] - report["tokens_out"] > 0
    assert answer.usage.total_tokens == 11
    assert answer.system_fingerprint == "fp_1"
    assert [row["kept"] for row in answer.ragpack["passages"]] == [[], [[17, 44]]]


def test_only_the_last_question_gets_them_and_images_stay(client, upstream):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    talk = [
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": [image, {"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "38", "tool_call_id": "t"},
    ]
    client.chat.completions.create(
        model="plain", messages=talk, extra_body={"documents": DOCUMENTS, **LEAN}
    )
    sent = upstream.asked["messages"]
    assert sent[:2] + sent[3:] == talk[:2] + talk[3:]
    lead, *rest = sent[2]["content"]
    assert lead == {"type": "text", "text": f"Context:\n{PACKED}\n\nQuestion: "}
    assert rest == talk[2]["content"]


def test_what_is_irrelevant_leaves_the_conversation_alone(client, upstream):
    nothing = {"documents": DOCUMENTS, "ragpack": {"min_relevance": 0.99}}
    answer = client.chat.completions.create(model="plain", messages=SAID, extra_body=nothing)
    assert upstream.asked["messages"] == SAID
    assert answer.ragpack["report"]["tokens_out"] == 0


def test_an_index_stands_for_documents(proxy, client, upstream, until):
    passages = [{"id": str(at), **row} for at, row in enumerate(DOCUMENTS)]
    key = {"Authorization": "Bearer secret"}
    job = proxy.client.post("/v1/index", json={"index": "notes", "passages": passages}, headers=key)
    where = job.headers["location"]
    until(lambda: proxy.client.get(where, headers=key).json()["status"] == "done")
    asked = {"index": "notes", "ragpack": {"k": 1, "method": "identity"}}
    answer = client.chat.completions.create(model="plain", messages=SAID, extra_body=asked)
    assert [row["id"] for row in answer.ragpack["passages"]] == ["1"]
    assert DOCUMENTS[1]["text"] in upstream.asked["messages"][1]["content"]
    with pytest.raises(openai.NotFoundError, match="no index"):
        client.chat.completions.create(model="plain", messages=SAID, extra_body={"index": "none"})


# Faithfulness


def test_without_documents_every_byte_passes(proxy, upstream):
    body = b'{ "model":"plain", "messages":"odd" ,"temperature" : 1.0, "new": [1e-7, "\\u00e9"]}'
    answer = post(proxy, body)
    assert answer.status_code == 200
    assert upstream.bodies[-1] == body
    assert answer.json()["usage"] == USAGE
    assert "ragpack" not in answer.json()
    streamed = post(proxy, {"model": "stream", "stream": True})
    assert streamed.content == upstream.sent
    assert streamed.headers["content-type"].startswith("text/event-stream")


def test_options_without_documents_stay_here(proxy, upstream):
    assert post(proxy, {"model": "plain", "messages": SAID, **LEAN}).status_code == 200
    assert upstream.asked == {"model": "plain", "messages": SAID}


def test_a_stream_keeps_its_bytes_but_for_the_usage(proxy, client, upstream):
    asked = {"model": "stream", "messages": SAID, "stream": True, "documents": DOCUMENTS, **LEAN}
    answer = post(proxy, asked)
    assert answer.content == upstream.sent
    saved = int(answer.headers["x-ragpack-tokens-in"]) - int(answer.headers["x-ragpack-tokens-out"])
    chunks = list(
        client.chat.completions.create(
            model="stream",
            messages=SAID,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"documents": DOCUMENTS, **LEAN},
        )
    )
    assert (
        "".join(c.choices[0].delta.content for c in chunks if c.choices) == "38 \u2028usage metres."
    )
    assert chunks[-1].usage.context_tokens_saved == saved > 0
    assert chunks[-1].usage.total_tokens == 11
    assert [c.usage for c in chunks[:-1]] == [None] * 3


def test_tools_logprobs_and_choices_are_untouched(client, upstream):
    extra = {"documents": DOCUMENTS, **LEAN}
    answer = client.chat.completions.create(
        model="tools", messages=SAID, tools=TOOLS, logprobs=True, extra_body=extra
    )
    assert upstream.asked["tools"] == TOOLS
    assert upstream.asked["logprobs"] is True
    choice = answer.choices[0]
    assert choice.message.tool_calls[0].function.name == "look"
    assert choice.logprobs.content[0].logprob == -0.125
    three = client.chat.completions.create(model="plain", messages=SAID, n=3, extra_body=extra)
    assert [choice.index for choice in three.choices] == [0, 1, 2]


def test_keys_and_headers_stay_on_their_side(proxy, upstream):
    answer = post(proxy, {"model": "plain", "messages": SAID}, Cookie="a=b", **{"X-Mine": "1"})
    got = upstream.headers[-1]
    assert got["authorization"] == "Bearer upstream-key"
    assert got["x-request-id"] == answer.headers["x-request-id"]
    assert not {"cookie", "x-mine"} & got.keys()
    assert "x-internal" not in answer.headers
    assert proxy.client.post("/v1/chat/completions", json={}).status_code == 401


# What goes wrong


def test_the_upstreams_refusals_keep_status_body_and_advice(proxy, client, upstream):
    with pytest.raises(openai.RateLimitError, match="slow down") as refused:
        client.chat.completions.create(
            model="refusing", messages=SAID, extra_body={"documents": DOCUMENTS}
        )
    assert refused.value.code == "rate_limit"
    assert refused.value.response.headers["retry-after"] == "7"
    broken = post(proxy, {"model": "failing", "messages": SAID, "documents": DOCUMENTS})
    assert (broken.status_code, broken.text) == (500, "<h1>out of order</h1>")
    assert broken.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    ("model", "message"), [("complaining", "the GPU fell over"), ("breaking", "broke off")]
)
@pytest.mark.parametrize("extra", [{}, {"documents": DOCUMENTS}], ids=["plain", "packed"])
def test_errors_in_the_middle_of_a_stream_reach_the_client(client, model, message, extra):
    chunks = client.chat.completions.create(
        model=model, messages=SAID, stream=True, extra_body=extra
    )
    assert next(chunks).choices[0].delta.content == "38"
    with pytest.raises(openai.APIError, match=message):
        next(chunks)


@pytest.mark.parametrize("extra", [{}, {"documents": DOCUMENTS}], ids=["plain", "packed"])
def test_a_client_that_leaves_ends_the_upstreams_answer(client, upstream, extra):
    with client.chat.completions.create(
        model="endless", messages=SAID, stream=True, extra_body=extra
    ) as stream:
        next(iter(stream))
    assert upstream.hung_up.wait(120)


async def test_a_client_that_leaves_before_the_answer_ends_the_question(proxy, client, upstream):
    async with openai.AsyncOpenAI(base_url=client.base_url, api_key="secret") as impatient:
        asking = impatient.chat.completions.create(model="silent", messages=SAID)
        task = asyncio.ensure_future(asking)
        assert await asyncio.to_thread(upstream.waits.wait, 120)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(upstream.hung_up.wait, 120)


def test_an_upstream_that_is_silent_or_away_is_said_so(serve, start, upstream):
    late = serve(upstream=upstream.url, upstream_seconds=0.2)
    answer = post(late, {"model": "silent", "messages": SAID})
    assert (answer.status_code, answer.json()["code"]) == (504, "UpstreamTimeout")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"  # nobody listens on it
        answer = post(serve(upstream=url), {"model": "plain", "messages": SAID})
    assert (answer.status_code, answer.json()["code"]) == (502, "UpstreamUnavailable")
    answer = post(serve(), {"model": "plain", "messages": SAID})
    assert (answer.status_code, answer.json()["code"]) == (404, "NoUpstream")


@pytest.mark.parametrize(
    ("wrong", "status", "detail"),
    [
        ({"documents": DOCUMENTS, "index": "notes"}, 422, "either documents or index"),
        ({"documents": DOCUMENTS, "messages": []}, 422, "one of the user"),
        ({"documents": DOCUMENTS, "messages": "?"}, 422, "one of the user"),
        ({"documents": [{"txt": "?"}]}, 422, "documents"),
        ({"documents": DOCUMENTS, "ragpack": {"budget": 0}}, 422, "budget"),
        ({"documents": DOCUMENTS, "ragpack": {"method": "nope"}}, 422, "nope"),
        ({"documents": ["?"] * 300}, 413, "passages"),
    ],
    ids=str,
)
def test_requests_that_cannot_be_packed_are_refused(proxy, upstream, wrong, status, detail):
    before = len(upstream.bodies)
    answer = post(proxy, {"model": "plain", "messages": SAID} | wrong)
    assert answer.status_code == status
    assert detail in answer.text
    assert len(upstream.bodies) == before


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://", "http://h:x/v1"])
def test_an_upstream_that_cannot_be_is_refused_at_start(url):
    with pytest.raises(ConfigError, match="upstream"):
        create_app(Settings(store="memory://", upstream=url))


# A real model


@pytest.fixture(scope="module")
def smollm2(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int], until: Any
) -> Iterator[tuple[str, Path]]:
    """``transformers serve`` with the installed decoder: its base URL, and the model's name."""
    folder = checkpoint_folder(resolve("smollm2-135m-instruct"))
    port = free_port()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder)]
    command += ["--port", str(port), "--device", "cpu"]
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, stdout=output, stderr=output
        )

    def answers() -> bool:
        assert server.poll() is None, log.read_text()
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health").is_success
        except httpx.HTTPError:
            return False

    try:
        until(answers, 300)
        yield f"http://127.0.0.1:{port}/v1", folder
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_a_real_model_answers_from_the_packed_documents(serve, smollm2):
    url, folder = smollm2
    proxy = serve(upstream=url)
    with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="none") as client:
        asked: dict[str, Any] = {"model": str(folder), "temperature": 0, "max_tokens": 16}
        asked |= {"messages": SAID[1:], "extra_body": {"documents": DOCUMENTS, **LEAN}}
        whole = client.chat.completions.create(**asked)
        options = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = list(client.chat.completions.create(**asked, **options))
    text = whole.choices[0].message.content
    assert "38 met" in text
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert len(pieces) > 3
    assert "".join(pieces) == text
    saved = whole.usage.context_tokens_saved
    assert saved > 0
    assert whole.usage.prompt_tokens > 0
    told = [c.usage for c in chunks if c.usage]
    assert told[-1].context_tokens_saved == saved
