"""``ragpack bench quality`` on a few real questions, and what it refuses."""

import json
from pathlib import Path

import pytest

SENTENCES = [
    "The tank is 38 metres long.",
    "It was filled in May.",
    "Ferries leave at eight.",
    "Dogs pay half the fare.",
]
RECORD = {
    "question": "How long is the tank?",
    "answers": ["38 metres"],
    "passages": [
        {
            "id": "tank",
            "title": "Merrow Hill",
            "text": " ".join(SENTENCES[:2]),
            "is_gold": True,
            "sentences": SENTENCES[:2],
            "support": [0],
        },
        {"id": "ferry", "title": "Port Ansel", "text": " ".join(SENTENCES[2:])},
    ],
}


@pytest.fixture
def qa(tmp_path: Path) -> Path:
    path = tmp_path / "qa.jsonl"
    yes_no = RECORD | {"question": "Is the tank full?", "answers": ["yes"]}
    path.write_text("".join(json.dumps(one) + "\n" for one in (RECORD, yes_no)))
    return path


def test_measures_methods_against_the_floor_and_draws_them(ragpack, qa, tmp_path) -> None:
    ran = ragpack(
        "bench", "quality", "--qa", qa, "--methods", "identity,recomp-extractive",
        "--rates", "0.3,0.5", "--read", 1, "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.json == json.loads((tmp_path / "out" / "quality.json").read_text())
    assert (tmp_path / "out" / "quality.png").read_bytes().startswith(b"\x89PNG")
    rows = {(r["method"], r["rate"], r["min_relevance"] is None): r for r in ran.json["rows"]}
    assert {name for name, _, _ in rows} == {
        "none", "bm25", "identity", "recomp-extractive", "whole",
    }  # fmt: skip
    best = rows["recomp-extractive", 0.3, True]
    assert best["answer"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 1}
    assert best["support"]["value"] == 1.0
    assert 0.2 < best["words"]["value"] < 0.4
    assert rows["none", 0.0, True]["answer"]["value"] == 0.0
    assert rows["whole", 1.0, True]["nll"]["value"] < rows["none", 0.0, True]["nll"]["value"]
    method = ran.json["methods"]["recomp-extractive"]
    assert method["empty_without_gold"]["value"] == 1.0
    assert method["empty"]["value"] == 0.0
    assert method["warm_ms"] > 0


def test_methods_that_cannot_run_here_are_named(ragpack, qa) -> None:
    ran = ragpack("bench", "quality", "--qa", qa, "--questions", 1, "--rates", "0.5")
    assert ran.code == 0
    said = " ".join(ran.err.split())
    assert "exit is left out: no model 'google/gemma-2b-it'" in said
    assert "kv-reuse is left out: kv-reuse keeps no parts of the passages" in said
    assert "exit-mini:" in said
    assert ran.out == ""


def test_real_questions_keep_what_the_model_card_says(ragpack, shared_data) -> None:
    ran = ragpack(
        "bench", "quality", "--qa", shared_data / "qa_dev.jsonl", "--questions", 12,
        "--methods", "identity,recomp-extractive,recomp-extractive?ranking=false",
        "--rates", "0.286", "--json",
    )  # fmt: skip
    kept = {
        row["method"]: row["answer"]["value"]
        for row in ran.json["rows"]
        if row["min_relevance"] is None
    }
    assert kept["whole"] == 1.0
    assert kept["recomp-extractive"] > 0.8 > kept["identity"]
    assert kept["recomp-extractive"] >= kept["recomp-extractive?ranking=false"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--qa", "absent.jsonl"], 1, "cannot read questions"),
        (["--qa", "EMPTY"], 1, "holds no question"),
        (["--qa", "BAD"], 1, "line 2: not a question record: no field 'answers'"),
        (["--qa", "QA", "--questions", "0"], 2, "at least 1"),
        (["--qa", "QA", "--rates", "0"], 2, "above 0"),
        (["--qa", "QA", "--rates", "much"], 2, "--rates takes numbers"),
        (["--qa", "QA", "--methods", "exit-mimi"], 2, "did you mean"),
        (["--qa", "QA", "--methods", "ape"], 2, "keeps no parts"),
        (["--qa", "QA", "--methods", "identity?store=x"], 2, "no setting store"),
        (["--qa", "QA", "--methods", "exit"], 2, "google/gemma-2b-it"),
    ],
)
def test_wrong_use_says_what_to_do(ragpack, qa, tmp_path, arguments, code, said) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(RECORD) + "\n" + json.dumps({"question": "x", "passages": []}) + "\n")
    paths = {"QA": qa, "EMPTY": tmp_path / "empty.jsonl", "BAD": bad}
    ran = ragpack("bench", "quality", *[paths.get(argument, argument) for argument in arguments])
    assert (ran.code, ran.out) == (code, "")
    assert said in " ".join(ran.err.split())
