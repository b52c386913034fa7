"""POST /v1/compress and /v1/pack against a running server: the same as the Python API, as JSON."""

import json

import pytest

from ragpack import ContextPacker, Passage

QUERY = "How long is the tank?"


def test_compress_equals_the_python_api(service, passages):
    asked = {"query": QUERY, "passages": passages, "top_n": 1}
    answer = service.client.post("/v1/compress", json=asked).json()
    given = [Passage(one["id"], one["text"], one["title"]) for one in passages]
    with ContextPacker("recomp-extractive", top_n=1, store="memory://") as packer:
        packed = packer.pack(QUERY, given)
    assert [row["kept"] for row in answer["results"]] == [
        [list(span) for span in row.kept] for row in packed.report.passages
    ]
    assert answer["results"][1]["text"] == "The long tank is 38 metres from end to end."
    for name in ("tokens_in", "tokens_out", "rate", "budget"):
        assert answer["report"][name] == packed.report.to_dict()[name]


def test_the_second_time_everything_is_a_hit(serve, passages, until):
    client = serve().client
    asked = {"query": QUERY, "passages": passages}
    first = client.post("/v1/compress", json=asked).json()
    assert {row["cache"] for row in first["results"]} == {"miss"}
    again = asked | {"query": "When was it lit?"}

    def caches():
        answer = client.post("/v1/compress", json=again).json()
        return {row["cache"] for row in answer["results"]}

    until(lambda: caches() == {"hit"})  # written behind the answer


def test_scores_are_of_every_unit_kept_or_not(service, passages):
    asked = {"query": QUERY, "passages": passages, "top_n": 1, "scores": True}
    answer = service.client.post("/v1/compress", json=asked).json()
    for passage, row in zip(passages, answer["results"], strict=True):
        texts = [passage["text"][unit["start"] : unit["end"]] for unit in row["units"]]
        assert " ".join(texts) == passage["text"]
        assert all(unit["tokens"] > 0 for unit in row["units"])
    best = max(
        (unit["score"], i) for i, row in enumerate(answer["results"]) for unit in row["units"]
    )
    assert answer["results"][best[1]]["kept"]
    assert answer["settings"] == {"top_n": 1, "threshold": None}


@pytest.mark.parametrize("method", ["identity", "recomp-extractive", "exit-mini"])
def test_a_budget_holds(service, passages, method):
    asked = {"query": QUERY, "passages": passages, "method": method, "budget": 30}
    answer = service.client.post("/v1/pack", json=asked).json()
    assert 0 < answer["report"]["tokens_out"] <= 30
    assert answer["context"]


def test_pack_gives_messages(service, passages):
    asked = {"query": QUERY, "passages": passages, "format": "messages", "top_n": 1}
    answer = service.client.post("/v1/pack", json=asked).json()
    assert [message["role"] for message in answer["messages"]] == ["system", "user"]
    assert answer["context"] in answer["messages"][1]["content"]
    assert answer["messages"][1]["content"].endswith(QUERY)


def test_settings_of_one_request_do_not_stay_for_the_next(service, passages):
    asked = {"query": QUERY, "passages": passages}
    plain = service.client.post("/v1/compress", json=asked).json()
    service.client.post("/v1/compress", json=asked | {"top_n": 1}).json()
    after = service.client.post("/v1/compress", json=asked).json()
    assert after["settings"] == plain["settings"] == {"top_n": None, "threshold": None}
    kept = [[row["kept"] for row in answer["results"]] for answer in (plain, after)]
    assert kept[0] == kept[1]


def test_least_relevance_leaves_passages_out(service, passages):
    asked = {"query": QUERY, "passages": passages, "min_relevance": 0.5}
    answer = service.client.post("/v1/compress", json=asked).json()
    assert [bool(row["kept"]) for row in answer["results"]] == [False, True]


def test_twins_and_plain_strings(service):
    asked = {"query": QUERY, "passages": ["It is long.", "It is long.", ""], "method": "identity"}
    rows = service.client.post("/v1/compress", json=asked).json()["results"]
    assert [row["id"] for row in rows] == ["0", "1", "2"]
    assert [row["text"] for row in rows] == ["It is long.", "", ""]
    assert rows[1]["reason"] == "duplicate of 0"


@pytest.mark.parametrize(
    "text",
    ["", "x", "多い。少ない。", "🦊" * 300, "a\x00b", "word " * 2_000],
    ids=lambda text: repr(text[:8]),
)
def test_any_text_gives_an_answer(service, text):
    asked = {"query": text[:100], "passages": [text, "The tank is long."]}
    answer = service.client.post("/v1/compress", json=asked)
    assert answer.status_code == 200
    assert answer.json()["report"]["fallbacks"] == {}


def test_a_batch_is_answered_line_by_line(service, passages):
    good = {"query": QUERY, "passages": passages, "top_n": 1}
    asked = {
        "requests": [good, good | {"method": "nope"}, good | {"method": "identity", "top_n": None}]
    }
    with service.client.stream("POST", "/v1/compress/batch", json=asked) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/jsonl"
        lines = {line["index"]: line for line in map(json.loads, answer.iter_lines())}
    assert lines[0]["response"]["results"][1]["kept"]
    assert lines[1]["problem"]["code"] == "UnknownPluginError"
    assert lines[2]["response"]["method"] == "identity"


def test_rerank_in_the_shape_of_cohere(service, passages):
    documents = [passages[0]["text"], passages[1]["text"], ""]
    asked = {"model": "recomp-extractive", "query": QUERY, "documents": documents, "top_n": 2}
    answer = service.client.post("/v1/rerank", json=asked | {"return_documents": True}).json()
    assert [row["index"] for row in answer["results"]] == [1, 0]
    assert answer["results"][0]["relevance_score"] > answer["results"][1]["relevance_score"]
    assert answer["results"][0]["document"] == {"text": documents[1]}
    assert answer["usage"]["total_tokens"] > 10


def test_methods_and_models_say_what_there_is(service):
    rows = {row["name"]: row for row in service.client.get("/v1/methods").json()["data"]}
    assert rows["recomp-extractive"]["available"]
    assert rows["exit-mini"]["settings"].keys() == {"tau"}
    assert not rows["ape"]["available"]
    assert "decoder in the same process" in rows["ape"]["reason"]
    assert not rows["exit"]["available"]
    models = service.client.get("/v1/models").json()["data"]
    assert "all-minilm-l6-v2" in {row["id"] for row in models}
