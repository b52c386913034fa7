"""``ragpack index --push``: what a Pushgateway is told, and one that is not there."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prometheus_client.parser import text_string_to_metric_families


@pytest.fixture
def gateway():
    """An HTTP server that answers as a Pushgateway does, and keeps what it was sent."""
    pushes: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            pushes.append((self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", pushes
        server.shutdown()
        thread.join()


def samples(body: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("ragpack_index_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def index(ragpack, corpus, folder, *more):
    return ragpack("index", "--corpus", corpus, "--index", folder, "--methods", "", "--json", *more)


def test_the_gateway_is_told_of_what_was_done(ragpack, corpus, gateway, tmp_path) -> None:
    url, pushes = gateway
    done = index(ragpack, corpus, tmp_path / "my-index", "--push", url)
    assert done.code == 0
    path, body = pushes[-1]
    assert path == "/metrics/job/ragpack_index/index/my-index"
    told = samples(body)
    count = done.json["passages"]
    assert told["passages",] == told["artifacts", "dense", "computed"] == count > 0
    assert told["failures",] == 0
    assert told["stored_bytes",] > 1000 * count
    assert told["finished_timestamp_seconds",] > 1.7e9
    index(ragpack, corpus, tmp_path / "my-index", "--push", url)
    assert samples(pushes[-1][1])["artifacts", "dense", "hit"] == count


def test_a_job_that_fails_has_no_time_of_its_end(ragpack, gateway, tmp_path) -> None:
    url, pushes = gateway
    empty = tmp_path / "empty.jsonl"
    empty.write_text(json.dumps({"id": "a"}) + "\n")
    assert index(ragpack, empty, tmp_path / "index", "--push", url).code == 1
    told = samples(pushes[-1][1])
    assert told["failures",] == 1
    assert ("finished_timestamp_seconds",) not in told


def test_a_gateway_that_is_away_costs_a_warning(ragpack, corpus, tmp_path) -> None:
    done = index(ragpack, corpus, tmp_path / "index", "--push", "http://127.0.0.1:1")
    assert done.code == 0
    assert "does not take the metrics" in done.err


def test_no_address_is_a_wrong_setting(ragpack, corpus, tmp_path) -> None:
    done = index(ragpack, corpus, tmp_path / "index", "--push", "localhost:9091")
    assert done.code == 2
    assert "http://localhost:9091" in done.err
    assert not (tmp_path / "index" / "manifest.json").exists()
