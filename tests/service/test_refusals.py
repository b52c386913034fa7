"""What cannot be used is refused, cheaply, with a reason and without a fault of ours."""

import json
import socket
from contextlib import suppress

import httpx
import psutil
import pytest

GOOD = {"query": "How long?", "passages": ["The tank is long."]}


@pytest.mark.parametrize(
    ("path", "change", "status", "code", "word"),
    [
        ("compress", {"method": "exitt"}, 422, "UnknownPluginError", "recomp-extractive"),
        ("compress", {"method": "exit"}, 422, "UnsupportedModel", "google/gemma-2b-it"),
        ("compress", {"method": "ape"}, 422, "UnsupportedModel", "do not travel over HTTP"),
        ("compress", {"budget": 0}, 422, "InvalidRequest", "body.budget"),
        ("compress", {"method": "exit-mini", "tau": 1.5}, 422, "InvalidRequest", "body.tau"),
        ("compress", {"method": "exit-mini", "tau": -0.1}, 422, "InvalidRequest", "body.tau"),
        ("compress", {"tau": 0.5}, 422, "ConfigError", "it has: top_n, threshold"),
        ("compress", {"store": "redis://elsewhere"}, 422, "InvalidRequest", "body.store"),
        ("compress", {"passages": ["a"] * 257}, 413, "TooLarge", "257"),
        ("compress", {"passages": ["a" * 2_000_001]}, 413, "TooLarge", "characters"),
        ("compress", {"query": "a" * 10_001}, 413, "TooLarge", "query_characters"),
        ("pack", {"index": "handbook"}, 422, "ConfigError", "either passages or index"),
        ("pack", {"passages": None}, 422, "ConfigError", "either passages or index"),
        ("pack", {"passages": None, "index": "none"}, 404, "NotFound", "no index"),
        ("pack", {"passages": None, "index": "../../etc"}, 422, "InvalidRequest", "body.index"),
        ("pack", {"passages": None, "index": "http://x"}, 422, "InvalidRequest", "body.index"),
    ],
)
def test_a_request_that_cannot_be_used(service, path, change, status, code, word):
    refused = service.client.post(f"/v1/{path}", json=GOOD | change)
    assert refused.status_code == status
    assert refused.headers["content-type"] == "application/problem+json"
    problem = refused.json()
    assert problem["code"] == code
    assert problem["type"] == f"urn:ragpack:{code}"
    assert word in problem["detail"]
    assert problem["request_id"] == refused.headers["x-request-id"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"[" * 100_000, "application/json", 400),
        (b'{"query": "\xff", "passages": []}', "application/json", 400),
        (b'{"query": "\\ud800", "passages": []}', "application/json", 400),
        (b'{"query": "a", "passages": [], "rate": NaN}', "application/json", 400),
        (b"", "application/json", 422),
        (b"not json", "application/json", 400),
        (json.dumps(GOOD).encode(), "text/plain", 415),
        (json.dumps(GOOD).encode(), "multipart/form-data", 415),
    ],
)
def test_a_body_that_cannot_be_read(service, body, kind, status):
    refused = service.client.post(
        "/v1/compress", content=body, headers={"Content-Type": kind, "X-Request-ID": "mine-1"}
    )
    assert refused.status_code == status
    assert refused.json()["request_id"] == "mine-1"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"query": "a", "passages": ["x"] * 1_000}, 413),
        ({"query": "a", "passages": ["x"] * 1_000_000}, 422),
        ({"query": "a", "passages": [1] * 1_000_000}, 422),
        ({"query": "a", "passages": [{"text": 1}] * 500_000}, 422),
        ({str(n): 1 for n in range(200_000)}, 413),
        ({"query": "a", "passages": [{str(n): 1 for n in range(2_000)}]}, 413),
    ],
)
def test_what_is_wrong_a_million_times_is_told_once(service, body, status):
    before = psutil.Process().memory_info().rss
    refused = service.client.post("/v1/compress", json=body)
    assert refused.status_code == status
    assert len(refused.content) < 5_000
    assert psutil.Process().memory_info().rss - before < 256 << 20


def _connect(service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=300)


HEAD = b"POST /v1/compress HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"])
def test_a_gigabyte_is_refused_before_it_is_here(service, framing):
    before = psutil.Process().memory_info().rss
    piece = b"x" * 65_536 if b"Length" in framing else b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    answer = b""
    with _connect(service) as connection:
        connection.sendall(HEAD + framing + b"\r\n\r\n")
        try:
            for _ in range(16_000):
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            pytest.fail("the server read all of it")
        with suppress(ConnectionResetError):  # it may be lost with the connection
            answer = connection.recv(65_536)
    assert answer == b"" or b" 413 " in answer
    assert psutil.Process().memory_info().rss - before < 64 << 20


def test_who_is_slow_is_cut_off_and_disturbs_nobody(serve):
    service = serve(limits={"head_seconds": 3.0, "body_seconds": 3.0, "in_flight": 4})
    slow_heads = [_connect(service) for _ in range(10)]
    for one in slow_heads:
        one.sendall(b"POST /v1/comp")
    with _connect(service) as slow_body:
        slow_body.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        assert service.client.post("/v1/compress", json=GOOD).status_code == 200
        assert b" 408 " in slow_body.recv(1000)
    for one in slow_heads:
        assert one.recv(1000) == b""
        one.close()


def test_an_endless_head_is_cut_off(service):
    with _connect(service) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        endless = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(10_000))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.sendall(endless)


def test_bytes_between_requests_do_not_hold_a_connection(serve):
    service = serve(limits={"head_seconds": 3.0})
    with _connect(service) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(1000)
        connection.sendall(b"\r\n")  # stops uvicorn's own clock
        assert connection.recv(1000) == b""


def test_a_line_break_in_a_header_ends_up_nowhere(service):
    with _connect(service) as connection:
        connection.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-ID: a\rInjected: yes\r\n\r\n"
        )
        answer = connection.recv(4000)
    assert b"Injected" not in answer
    echoed = service.client.get("/healthz", headers={"X-Request-ID": 'a"} {"b": 1'})
    assert '"' not in echoed.headers["x-request-id"]


def test_places_run_out_and_come_back(serve, until):
    service = serve(limits={"in_flight": 1, "body_seconds": 300.0})
    with _connect(service) as holder:
        holder.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        until(lambda: "in_progress 2" in _metrics(service))  # asking for it is under way too
        refused = service.client.post("/v1/compress", json=GOOD)
    assert refused.status_code == 429
    assert refused.json()["code"] == "Overloaded"
    assert refused.headers["retry-after"] == "1"
    until(lambda: service.client.post("/v1/compress", json=GOOD).status_code == 200)


def test_requests_under_way_are_finished_when_the_server_stops(serve, until):
    service = serve()
    passages = [f"The tank is {n} metres long." for n in range(200)]
    body = json.dumps({"query": "How long?", "passages": passages}).encode()
    with _connect(service) as connection:
        head = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body[:1000])
        until(lambda: "in_progress 2" in _metrics(service))  # asking for it is under way too
        service.server.should_exit = True
        until(lambda: _is_away(service))
        connection.sendall(body[1000:])
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["results"]) == 200


def _is_away(service) -> bool:
    with suppress(httpx.TransportError):
        httpx.get(f"{service.url}/healthz")
        return False
    return True


def _metrics(service) -> str:
    return service.client.get("/metrics").text
