"""What operators see: readiness, counters, traces and logs; and never a word of a passage."""

import json
import logging
import threading

import httpx
import pytest

from ragpack.service.logs import JsonFormatter

SECRET_TEXT = "Marmalade is stored in the cellar."
ASKED = {"query": "Where is the marmalade?", "passages": [SECRET_TEXT]}


def _metric(client, line):
    found = [row for row in client.get("/metrics").text.splitlines() if row.startswith(line)]
    return float(found[0].rsplit(" ", 1)[1]) if found else 0.0


def test_a_redis_that_dies_fails_no_request_and_shows_in_readiness(serve, redis_server, until):
    client = serve(store=redis_server.url).client
    until(lambda: client.get("/readyz").status_code == 200)
    answers: list[httpx.Response] = []
    stop = threading.Event()

    def load(number):
        with httpx.Client(base_url=client.base_url, timeout=300) as own:
            while not stop.is_set():
                text = f"{SECRET_TEXT} {number} {len(answers)}"
                answers.append(own.post("/v1/compress", json=ASKED | {"passages": [text]}))

    threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(answers) > 10)
    redis_server.kill()
    until(lambda: client.get("/readyz").status_code == 503)
    red = client.get("/readyz").json()
    before = len(answers)
    until(lambda: len(answers) > before + 10)
    redis_server.start()
    until(lambda: client.get("/readyz").status_code == 200)
    stop.set()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200}
    assert red == {"ready": False, "checks": {"store": "the store does not answer", "models": "ok"}}
    assert client.get("/healthz").status_code == 200
    assert _metric(client, "ragpack_store_up") == 1


def test_every_request_and_refusal_is_counted(serve, until):
    client = serve().client

    def counted(line):  # a request is counted when its answer has gone out
        until(lambda: _metric(client, line))
        return _metric(client, line)

    client.post("/v1/compress", json=ASKED)
    client.post("/v1/compress", json=ASKED | {"method": "nope"})
    client.get("/nowhere/at/all")
    route = 'ragpack_http_requests_total{method="POST",route="/v1/compress",status='
    assert counted(route + '"200"') == counted(route + '"422"') == 1
    assert counted('ragpack_failures_total{reason="UnknownPluginError"}') == 1
    assert counted('ragpack_http_request_seconds_count{route="/v1/compress"}') == 2
    assert counted('ragpack_http_request_seconds_count{route="none"}') == 1
    stage = 'ragpack_stage_seconds_count{method="recomp-mini",stage='
    assert _metric(client, stage + '"fetch"') == _metric(client, stage + '"select"') == 1
    result = 'ragpack_cache_requests_total{method="recomp-mini",result="miss"}'
    assert _metric(client, result) == 1
    assert _metric(client, 'ragpack_tokens_total{direction="in"}') > 5
    assert "armalade" not in client.get("/metrics").text


def test_traces_go_on_where_the_caller_began(serve, spans, until):
    client = serve().client
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client.post("/v1/compress", json=ASKED, headers={"traceparent": parent})
    client.post("/v1/compress", json=ASKED | {"budget": SECRET_TEXT})
    client.post("/v1/compress", json=ASKED | {"method": SECRET_TEXT})
    until(lambda: [s.name for s in spans.get_finished_spans()].count("POST /v1/compress") == 3)
    found = [
        span
        for span in spans.get_finished_spans()
        if span.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    ]
    assert {"POST /v1/compress", "ragpack.pack", "ragpack.compress"} <= {s.name for s in found}
    everything = " ".join(span.to_json() for span in spans.get_finished_spans())
    assert "armalade" not in everything


def test_logs_are_json_without_text_or_keys(serve, make_key, caplog, until):
    caplog.set_level(logging.DEBUG, "ragpack")
    client = serve(keys=(make_key("team", "open-sesame"),)).client
    headers = {"Authorization": "Bearer open-sesame", "X-Request-ID": "job-7"}
    client.post("/v1/compress", json=ASKED, headers=headers)
    client.post("/v1/compress", json=ASKED | {"tau": SECRET_TEXT}, headers=headers)
    client.post("/v1/compress", json=ASKED, headers={"Authorization": "Bearer open-sesamE"})

    def requests():  # each is logged when its answer has gone out
        return [record for record in caplog.records if record.name == "ragpack.service.access"]

    until(lambda: len(requests()) == 3)
    lines = [json.loads(JsonFormatter().format(record)) for record in requests()]
    first = lines[0]
    assert (first["request_id"], first["key"], first["status"]) == ("job-7", "team", 200)
    assert first["passages"] == 1
    assert first["tokens_in"] > 5
    assert [line["failure"] for line in lines] == [None, "InvalidRequest", "Unauthorized"]
    everything = "\n".join(JsonFormatter().format(record) for record in caplog.records)
    assert "armalade" not in everything
    assert "sesam" not in everything


def test_merged_runs_of_the_encoder_give_each_its_own(serve):
    client = serve().client
    passages = [
        "The tank is 38 metres long. It has a lid.",
        "Ferries leave at eight. Gulls follow.",
    ]
    questions = [
        f"{word} {n}?"
        for n in range(8)
        for word in ("How long is the tank", "When do ferries leave")
    ]
    alone = serve(batching=False).client

    def ask(to, question):
        asked = {"query": question, "passages": passages, "scores": True}
        asked |= {"method": "recomp-extractive"}
        rows = to.post("/v1/compress", json=asked).json()["results"]
        return [unit["score"] for row in rows for unit in row["units"]]

    answers: dict[str, list[float]] = {}
    threads = [
        threading.Thread(target=lambda q=question: answers.update({q: ask(client, q)}))
        for question in questions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for question in questions:
        assert answers[question] == pytest.approx(ask(alone, question), abs=1e-3)
    assert _metric(client, "ragpack_batch_requests_sum") > len(questions)


def test_a_model_that_breaks_shows_in_readiness_without_our_paths(serve, tmp_path, caplog, until):
    weights = tmp_path / "broken.safetensors"
    weights.write_bytes(b"not weights")
    client = serve(
        methods=("identity", "exit-mini"), method_settings={"exit-mini": {"weights": weights}}
    ).client
    until(lambda: client.get("/readyz").json()["checks"]["models"] != "loading")
    red = client.get("/readyz")
    assert red.status_code == 503
    assert "the service's log says why" in red.json()["checks"]["models"]
    assert str(tmp_path) not in red.text
    assert "a model cannot be used" in caplog.text


def test_a_method_that_breaks_leaves_the_others(serve, tmp_path, passages, caplog, until):
    settings = {"exit-mini": {"weights": tmp_path / "missing.safetensors"}}
    client = serve(methods=("recomp-extractive", "exit-mini"), method_settings=settings).client
    rows = {row["name"]: row for row in client.get("/v1/methods").json()["data"]}
    assert rows["recomp-extractive"]["available"]
    assert rows["exit-mini"]["reason"] == "it failed; the service's log says why"
    assert "method exit-mini is not available" in caplog.text
    body = {"index": "book", "passages": passages, "methods": ["recomp-extractive"]}
    job = client.post("/v1/index", json=body).headers["location"]
    until(lambda: client.get(job).json()["status"] == "done")
    assert client.delete("/v1/passages/b", params={"index": "book"}).status_code == 200
    assert client.post("/v1/compress", json=ASKED | {"method": "exit-mini"}).status_code == 422
    assert client.get("/readyz").json()["checks"]["models"] in ("loading", "ok")
