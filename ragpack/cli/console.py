"""What people see: messages and tables on stderr, data on stdout."""

import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from ragpack.report import PackedContext, PackReport
from ragpack.text import plural
from ragpack.types import Passage, Span

__all__ = [
    "complain",
    "emit",
    "show_kept",
    "show_report",
    "talk",
    "talk_logs",
]

talk = Console(stderr=True, highlight=False)


def emit(value: Any) -> None:
    """Write ``value`` as JSON to stdout; ASCII only, so that any text passes any pipe."""
    sys.stdout.write(json.dumps(value) + "\n")


def complain(error: Exception) -> None:
    """Say what went wrong, in red, without a traceback."""
    talk.print(Text("error: ", style="bold red") + Text(str(error)), soft_wrap=True)


def talk_logs() -> None:
    """Show the library's warnings on stderr."""
    handler = RichHandler(console=talk, show_time=False, show_path=False)
    logging.getLogger("ragpack").addHandler(handler)


def show_report(report: PackReport) -> None:
    """Tokens, cache results and times of a request."""
    talk.print(_headline(report), style="italic", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for column in ("passage", "tokens in", "out", "cache", "note"):
        table.add_column(column, justify="right" if column in ("tokens in", "out") else "left")
    for row in report.passages:
        table.add_row(
            Text(row.id), str(row.tokens_in), str(row.tokens_out), row.cache, Text(row.reason)
        )
    talk.print(table)
    stages = "  ".join(f"{stage} {ms:.1f}" for stage, ms in report.ms.items())
    talk.print(f"[dim]milliseconds: {stages}[/dim]")
    for reason, count in report.fallbacks.items():
        passages = plural(count, "passage")
        talk.print(Text(f"{passages} passed on uncompressed: {reason}", style="yellow"))


def show_kept(packed: PackedContext, passages: list[Passage]) -> None:
    """What was kept of every passage: highlighted in place, or alone where there is no colour."""
    kept = {row.id: row.kept for row in packed.report.passages}
    in_place = talk.is_terminal and not talk.no_color
    for passage in passages:
        spans = kept.get(passage.id, ())
        head = Text(f"[{passage.id}] ", style="cyan") + Text(passage.title, style="bold cyan")
        talk.print(head if spans or in_place else head + Text("  (nothing kept)"))
        if in_place:
            talk.print(_highlighted(passage.text, spans))
        for start, end in () if in_place else spans:
            talk.print(Text(f"  {passage.text[start:end]}"), soft_wrap=True)


def _highlighted(text: str, spans: Sequence[Span]) -> Text:
    body = Text(text, style="dim")
    for start, end in spans:
        body.stylize("not dim bold", start, end)
    return body


def _headline(report: PackReport) -> str:
    budget = f", budget {report.budget}" if report.budget is not None else ""
    return (
        f"{report.method}: {report.tokens_in} → {report.tokens_out} tokens "
        f"(rate {report.rate:.2f}{budget}), {plural(report.hits, 'hit')}, "
        f"{plural(report.misses, 'miss', 'misses')}"
    )
