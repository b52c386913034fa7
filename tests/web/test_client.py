"""The typed client against the real service, and against one that is busy or none at all."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from ragpack import ContextPacker, Passage
from ragpack.client import AsyncClient, Client, Question, Reply
from ragpack.errors import (
    ConfigError,
    InputError,
    ServiceDenied,
    ServiceError,
    ServiceUnavailable,
    UnknownPluginError,
)

QUERY = "How long is the tank?"
PASSAGES = [
    Passage("a", "Ferries leave at eight 🚢. The lighthouse was first lit in 1871.", "Port Ansel"),
    Passage("b", "It has six labs. The long tank is 38 metres from end to end.", "Merrow Hill"),
]


def test_compress_gives_what_the_engine_gives(service):
    with Client(service) as client:
        got = client.compress(QUERY, PASSAGES, method="recomp-extractive", top_n=1, scores=True)
    with ContextPacker("recomp-extractive", top_n=1, store="memory://") as packer:
        wanted = packer.pack(QUERY, PASSAGES).report
    assert [(row.id, row.kept) for row in got.results] == [
        (row.id, row.kept) for row in wanted.passages
    ]
    assert (got.report.tokens_in, got.report.tokens_out) == (wanted.tokens_in, wanted.tokens_out)
    assert got.settings["top_n"] == 1
    assert got.results[1].text == "The long tank is 38 metres from end to end."
    units = got.results[0].units
    assert units is not None
    assert [PASSAGES[0].text[unit.start : unit.end] for unit in units] == [
        "Ferries leave at eight 🚢.",
        "The lighthouse was first lit in 1871.",
    ]
    assert all(unit.score is not None and unit.tokens > 0 for unit in units)


def test_pack_under_a_budget_as_messages(service):
    with Client(service) as client:
        packed = client.pack(QUERY, PASSAGES, format="messages", budget=20)
    assert "38 metres" in packed.context
    assert packed.report.tokens_out <= 20 == packed.report.budget
    assert packed.messages is not None
    assert packed.messages[-1].role == "user"
    assert packed.context in packed.messages[-1].content


def test_the_catalogue_and_readiness(service):
    with Client(service) as client:
        methods = {method.name: method for method in client.methods()}
        assert methods["exit-mini"].available
        assert methods["exit-mini"].settings == {"tau": pytest.approx(0.85)}
        assert not methods["ape"].available
        assert methods["ape"].reason
        assert "all-minilm-l6-v2" in {model.id for model in client.models()}
        assert client.ready().checks["store"] == "ok"


def test_an_index_from_its_first_passage_to_its_last(service):
    with Client(service) as client:
        job = client.wait(client.index("ports", PASSAGES))
        assert (job.status, job.error) == ("done", None)
        assert job.result
        assert job.result["passages"] == 2
        packed = client.pack(QUERY, index="ports", k=1)
        assert [row.id for row in packed.passages] == ["b"]
        assert client.delete_passage("b", index="ports").id == "b"
        assert [row.id for row in client.pack(QUERY, index="ports").passages] == ["a"]
        with pytest.raises(ServiceError) as caught:
            client.job("none such/at all")
    assert caught.value.status == 404


def test_rerank_puts_the_best_first(service):
    documents = [f"{passage.title}. {passage.text}" for passage in PASSAGES]
    with Client(service) as client:
        ranking = client.rerank(QUERY, documents, model="exit-mini", return_documents=True)
        assert len(client.rerank(QUERY, PASSAGES, top_n=1).results) == 1
    assert [row.index for row in ranking.results] == [1, 0]
    assert ranking.results[0].relevance_score > ranking.results[1].relevance_score
    assert ranking.results[0].document is not None
    assert ranking.results[0].document.text == documents[1]


BATCH = [
    Question(QUERY, PASSAGES),
    Question(QUERY, PASSAGES, choice={"method": "nope"}),
    Question(QUERY, PASSAGES, scores=True, choice={"method": "exit-mini", "budget": 20}),
]


def _check_batch(replies: list[Reply]) -> None:
    first, second, third = sorted(replies, key=lambda reply: reply.index)
    assert first.response is not None
    assert first.response.method == "recomp-mini"
    assert isinstance(second.error, UnknownPluginError)
    assert third.response is not None
    assert third.response.report.tokens_out <= 20
    assert third.response.results[0].units


def test_a_batch_answers_each_question_on_its_own(service):
    with Client(service) as client:
        _check_batch(list(client.compress_batch(BATCH)))
        with pytest.raises(InputError):
            list(client.compress_batch([]))


def test_soft_tokens_where_a_method_makes_them(service):
    with Client(service) as client:
        with pytest.raises(ConfigError, match="no soft tokens"):
            client.embeds(QUERY, PASSAGES, method="recomp-extractive")
        made = client.embeds(QUERY, PASSAGES)
    assert made.payload["prompt_embeds"]
    assert made.report.method == "refrag"


async def test_an_asynchronous_batch(service):
    async with AsyncClient(service) as client:
        _check_batch([reply async for reply in client.compress_batch(BATCH)])
        job = await client.wait(await client.index("harbour", PASSAGES))
        assert job.status == "done"
        assert (await client.rerank(QUERY, PASSAGES)).results[0].index == 1
        assert (await client.delete_passage("a", index="harbour")).id == "a"


async def test_the_asynchronous_client_answers_alike(service, until):
    with Client(service) as client:  # both are answered from the store, once all is in it
        until(lambda: client.compress(QUERY, PASSAGES).report.hits == len(PASSAGES))
        wanted = client.compress(QUERY, PASSAGES)
    async with AsyncClient(service) as client:
        got = await client.compress(QUERY, PASSAGES)
        assert got.results == wanted.results
        assert (await client.pack(QUERY, PASSAGES)).context
        assert len(await client.methods()) > 2
        assert await client.models()
        assert (await client.ready()).ready
        with pytest.raises(UnknownPluginError):
            await client.compress(QUERY, PASSAGES, method="nope")


def test_the_services_errors_come_back_as_our_own(service):
    with Client(service) as client:
        with pytest.raises(UnknownPluginError, match="recomp-extractive") as caught:
            client.compress(QUERY, PASSAGES, method="recomp-extractiv")
        assert "422" in caught.value.__notes__[0]
        with pytest.raises(ConfigError):
            client.compress(QUERY, PASSAGES, method="recomp-extractive", tau=0.5)
        with pytest.raises(InputError):
            client.compress(QUERY, PASSAGES, budget=0)
        with pytest.raises(ConfigError, match="either passages or index"):
            client.pack(QUERY, PASSAGES, index="handbook")


def test_keys(locked_service, key):
    with Client(locked_service) as client, pytest.raises(ServiceDenied) as caught:
        client.methods()
    assert caught.value.status == 401
    assert caught.value.request_id
    with Client(locked_service, api_key="another") as client, pytest.raises(ServiceDenied):
        client.methods()
    with Client(locked_service, api_key=key) as client:
        assert client.compress(QUERY, PASSAGES, method="identity").report.rate == 1.0


class _Busy(BaseHTTPRequestHandler):
    """Refuses with the next answer of a list, then says that it is ready."""

    refusals: ClassVar[list[tuple[int, dict[str, str]]]] = []
    paths: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.paths.append(self.path)
        status, headers = self.refusals.pop(0) if self.refusals else (200, {})
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fine = b'{"data": []}' if self.command == "GET" else b""
        body = fine if status == 200 else b'{"detail": "64 requests are under way"}'
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def busy() -> Iterator[tuple[str, type[_Busy]]]:
    handler = type("_Handler", (_Busy,), {"refusals": [], "paths": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()


def test_a_busy_service_is_asked_again_after_the_time_it_names(busy):
    url, handler = busy
    past = format_datetime(datetime.now(UTC) - timedelta(minutes=1), usegmt=True)
    handler.refusals[:] = [(429, {"Retry-After": "0"}), (503, {"Retry-After": past})]
    with Client(url) as client:
        assert client.methods() == []
    assert len(handler.paths) == 3


def test_patience_has_an_end(busy):
    url, handler = busy
    handler.refusals[:] = [(429, {"Retry-After": "0"})] * 9
    with Client(url, retries=2) as client, pytest.raises(ServiceUnavailable, match="under way"):
        client.methods()
    assert len(handler.paths) == 3
    handler.refusals[:] = [(429, {"Retry-After": "3600"})]
    with Client(url) as client, pytest.raises(ServiceUnavailable) as caught:
        client.methods()
    assert (len(handler.paths), caught.value.retry_after) == (4, 3600)


def test_a_batch_that_breaks_off(busy):
    url, handler = busy
    handler.refusals[:] = [(503, {"Retry-After": "0"})]
    with Client(url) as client, pytest.raises(ServiceUnavailable, match="unanswered"):
        list(client.compress_batch(BATCH))
    assert handler.paths == ["/v1/compress/batch"] * 2


def test_other_refusals_stand(busy):
    url, handler = busy
    handler.refusals[:] = [(500, {})]
    with Client(url) as client, pytest.raises(ServiceError) as caught:
        client.methods()
    assert (len(handler.paths), caught.value.status) == (1, 500)


def test_no_service_at_all(busy):
    url, _ = busy
    with Client(url) as client, pytest.raises(ServiceError, match="Readiness"):
        client.ready()  # something answers, but no ragpack service
    with Client("http://127.0.0.1:9", retries=0) as client, pytest.raises(ServiceUnavailable):
        client.methods()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://[::1"])
def test_a_url_that_is_none(url):
    with pytest.raises(ConfigError):
        Client(url)


def test_a_key_that_no_header_can_carry():
    with pytest.raises(ConfigError):
        Client("http://localhost", api_key="line\nbreak")


def test_a_path_in_front_stays(busy):
    url, handler = busy
    with Client(f"{url}/ragpack/") as client:
        client.methods()
    assert handler.paths == ["/ragpack/v1/methods"]


def test_the_import_is_light():
    heavy = {"fastapi", "numpy", "pydantic", "starlette", "torch", "transformers", "uvicorn"}
    code = f"import sys, ragpack.client; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
