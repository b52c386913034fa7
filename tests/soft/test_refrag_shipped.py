"""The shipped projector on the real decoder that it was trained for."""

from __future__ import annotations

import json
import statistics
from importlib.resources import files

import pytest

from ragpack.cache_store.memory import MemoryStore
from ragpack.compressors.refrag import Refrag
from ragpack.handoff.hf import HFDecoder
from ragpack.pipeline import ContextPacker
from ragpack.soft.checkpoint import SHIPPED
from ragpack.types import Passage

DATA = files("ragpack") / "data"
SOME = 10


@pytest.fixture(scope="module")
def decoder() -> HFDecoder:
    return HFDecoder(device="cpu")


@pytest.fixture(scope="module")
def packer() -> ContextPacker:
    return ContextPacker(Refrag(sense="none"), store=MemoryStore(), strict=True)


def asked() -> list[tuple[str, Passage, str]]:
    """Questions on the sample handbook, each with its gold passage and its answer."""
    lines = (DATA / "handbook.jsonl").read_text(encoding="utf-8").splitlines()
    passages = {row["id"]: Passage(**row) for row in map(json.loads, lines)}
    lines = (DATA / "handbook_questions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if len(row["gold"]) == 1]
    return [(row["question"], passages[row["gold"][0]], row["answers"][0]) for row in rows[:SOME]]


def test_what_is_shipped_is_small_and_complete() -> None:
    names = {path.name for path in SHIPPED.iterdir()}
    assert names == {"README.md", "config.json", "loss.png", "model.safetensors", "training.json"}
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 8_000_000


def test_soft_tokens_carry_what_a_passage_says(packer, decoder) -> None:
    """The right passage's soft tokens make the answer likelier than no context, or another's."""
    losses: dict[str, list[float]] = {"right": [], "wrong": [], "none": []}
    questions = asked()
    for number, (query, passage, answer) in enumerate(questions):
        contexts = {
            "right": packer.pack(query, [passage]),
            "wrong": packer.pack(query, [questions[number - 1][1]]),
            "none": "",
        }
        for name, context in contexts.items():
            losses[name].append(-statistics.fmean(decoder.score(context, query, answer)))
    means = {name: statistics.fmean(row) for name, row in losses.items()}
    assert means["right"] < means["wrong"]
    assert means["right"] < means["none"]


def test_a_budget_buys_spelled_out_chunks(decoder) -> None:
    query, passage, _ = asked()[0]
    packer = ContextPacker("refrag", store=MemoryStore(), strict=True)
    small, large = (packer.pack(query, [passage], budget=rows) for rows in (20, 60))
    assert small.report.tokens_out <= 20
    assert 20 < large.report.tokens_out <= 60
    assert decoder.generate(large, query, max_new_tokens=3).usage.completion_tokens == 3
