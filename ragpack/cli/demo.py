"""``ragpack demo``: the whole path on a sample handbook, with real models."""

import json as jsonlib
import sys
from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any

import typer

from ragpack import config, registry
from ragpack.cli.ask import answer_dict, plain_context
from ragpack.cli.console import emit, show_kept, show_report, talk
from ragpack.cli.index import run_plan
from ragpack.cli.options import Json, open_index
from ragpack.corpus import Corpus
from ragpack.errors import ConfigError
from ragpack.handoff import open_decoder
from ragpack.index import IndexPlan, IndexSummary
from ragpack.pipeline import ContextPacker
from ragpack.report import PackedContext
from ragpack.text import plural
from ragpack.types import Answer

__all__ = ["demo", "handbook", "questions"]

_K = 8
_SENTENCES = 8
"""Of eight short passages; the default of twelve is too many for so small a decoder."""


def handbook() -> AbstractContextManager[Path]:
    """The sample corpus as a file."""
    return as_file(files("ragpack") / "data" / "handbook.jsonl")


def questions() -> list[dict[str, Any]]:
    """The sample questions, each with its answers and gold passages."""
    text = (files("ragpack") / "data" / "handbook_questions.jsonl").read_text(encoding="utf-8")
    return [jsonlib.loads(line) for line in text.splitlines()]


def demo(
    number: Annotated[int, typer.Option("--question", help="Number of a sample question.")] = 24,
    json: Json = False,
) -> None:
    """Index the sample handbook, answer a question from it, and account for everything."""
    samples = questions()
    if not 1 <= number <= len(samples):
        raise ConfigError(f"--question must be from 1 to {len(samples)}, not {number}")
    sample = samples[number - 1]
    query = sample["question"]
    store = registry.open_store(config.store_url())
    folder = config.home() / "demo-index"
    try:
        with handbook() as corpus:
            plan = IndexPlan(corpus=Corpus(corpus), folder=folder)
            indexed = run_plan(plan, store).summary
        found = open_index(folder).search(query, _K)
        with ContextPacker(config.DEFAULT_METHOD, store=store, top_n=_SENTENCES) as packer:
            packed = packer.pack(query, found)
    finally:
        store.close()
    plain, answers = _answer(query, packed, plain_context(query, found))
    warm = not indexed.computed and not packed.report.misses
    if json:
        emit(
            packed.to_dict()
            | {
                "index": indexed.to_dict(),
                "answer": answer_dict(answers),
                "plain": answer_dict(plain),
                "expected": sample["answers"],
                "all_from_store": warm,
            }
        )
        return
    talk.rule(f"[bold]{query}", align="left")
    show_kept(packed, found)
    talk.rule("report", align="left")
    show_report(packed.report)
    _say_store(indexed, packed, warm)
    talk.print(
        f"first token: {answers.ttft_ms:.0f} ms packed, {plain.ttft_ms:.0f} ms uncompressed "
        f"({plain.ttft_ms / answers.ttft_ms:.1f} times sooner)"
    )
    talk.print(f"expected answer: {' or '.join(sample['answers'])}", markup=False)
    talk.print(f"from the uncompressed passages: {plain.text.strip()}", markup=False)
    talk.print("from the packed context:")
    sys.stdout.write(answers.text.strip() + "\n")


def _answer(query: str, packed: PackedContext, plain: PackedContext) -> tuple[Answer, Answer]:
    """Answers from the plain and the packed context, by a decoder that has been warmed up."""
    decoder = open_decoder(config.DEFAULT_DECODER)
    decoder.generate(packed, query, max_new_tokens=1)
    before = decoder.generate(plain, query, max_new_tokens=48)
    return before, decoder.generate(packed, query, max_new_tokens=48)


def _say_store(indexed: IndexSummary, packed: PackedContext, warm: bool) -> None:
    if warm:
        talk.print("[green]everything came from the store: nothing was computed again[/green]")
        return
    computed = sum(indexed.computed.values()) + packed.report.misses
    made = plural(computed, "artifact")
    talk.print(f"{made} computed and stored; run it again to see what that saves")
