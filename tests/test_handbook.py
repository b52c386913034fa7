"""The sample corpus of ``ragpack demo`` is sound: a question can be answered from its passages."""

import json
from importlib.resources import files
from typing import Any

import pytest


def _rows(name: str) -> list[dict[str, Any]]:
    text = files("ragpack").joinpath("data", name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def passages() -> dict[str, dict[str, Any]]:
    rows = _rows("handbook.jsonl")
    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == len(rows), "passage ids repeat"
    return by_id


@pytest.fixture(scope="module")
def questions() -> list[dict[str, Any]]:
    return _rows("handbook_questions.jsonl")


def test_passages_have_a_title_and_several_sentences(passages):
    assert len(passages) == 160
    for row in passages.values():
        assert set(row) == {"id", "title", "text"}
        assert row["title"].strip()
        assert 60 <= len(row["text"].split()) <= 200, row["id"]
        assert row["text"].count(". ") >= 3, row["id"]


def test_no_text_or_title_repeats(passages):
    assert len({row["text"] for row in passages.values()}) == len(passages)
    assert len({row["title"] for row in passages.values()}) == len(passages)


def test_every_answer_stands_in_a_gold_passage(passages, questions):
    assert len({row["id"] for row in questions}) == len(questions) == 30
    for row in questions:
        gold = [passages[identifier]["text"] for identifier in row["gold"]]
        assert row["answers"]
        for answer in row["answers"]:
            assert any(answer in text for text in gold), (row["id"], answer)


def test_some_questions_need_two_passages(passages, questions):
    """The answer of a two-hop question stands in one gold passage only, or it would be one hop."""
    two_hop = [row for row in questions if len(row["gold"]) == 2]
    assert len(two_hop) == 5
    for row in two_hop:
        holders = [i for i in row["gold"] if row["answers"][0] in passages[i]["text"]]
        assert len(holders) == 1, row["id"]
