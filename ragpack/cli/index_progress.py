"""How an indexing job shows its progress, and what it says at its end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ragpack.cli.console import talk
from ragpack.index import Estimate, IndexJob, IndexResult, IndexSummary

__all__ = ["describe", "indexing", "show_estimate", "show_result"]

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def indexing(job: IndexJob) -> Iterator[Callable[[IndexSummary], None]]:
    """A bar over the corpus's bytes, or a line every ten seconds where stderr is no terminal.

    Yields what the job calls with its account after each batch.
    """
    bar = Progress(
        TextColumn("indexing"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=talk,
        disable=not talk.is_terminal,
    )
    size = job.plan.corpus.size
    task = bar.add_task("", total=size, state="")
    said = time.monotonic()

    def show(summary: IndexSummary) -> None:
        nonlocal said
        state = describe(summary, job.ratio.tokens(summary.characters))
        bar.update(task, completed=summary.offset, state=state)
        if not talk.is_terminal and time.monotonic() - said >= _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            talk.print(f"indexing: {state}{_left(summary, size)}", soft_wrap=True)

    with bar:
        yield show


def describe(summary: IndexSummary, tokens: int) -> str:
    """Passages, their rate, tokens computed a second, share found in the store, bytes stored."""
    seconds = summary.seconds or 1e-9
    found, computed = summary.hits.total(), summary.computed.total()
    share = found / (found + computed) if found + computed else 0.0
    return (
        f"{summary.passages:,} passages, {summary.passages / seconds:,.0f}/s, "
        f"≈{tokens / seconds:,.0f} tokens/s, {share:.0%} from the store, "
        f"{decimal(summary.bytes)} stored"
    )


def show_result(result: IndexResult, folder: object) -> None:
    """What was done, by method."""
    summary = result.summary
    talk.print(
        f"{summary.passages} passages in {summary.seconds:.1f} s, {summary.added} new in {folder}"
    )
    for name in summary.computed | summary.hits:
        talk.print(f"  {name}: {summary.computed[name]} computed, {summary.hits[name]} from store")
    if result.recall is not None:
        share, k = result.recall.recall, result.recall.k
        talk.print(
            f"  recall@{k} against exact search: {share:.3f} ({result.recall.queries} queries)"
        )
    if result.removed:
        talk.print(f"{result.removed} passages removed from the index")
    for name, count in result.pruned.items():
        talk.print(f"  {name}: {count} artifacts removed from the store")
    if summary.failures:
        talk.print(f"{summary.failures} records failed, see {result.dead_letters}", style="yellow")


def show_estimate(estimate: Estimate, gb_price: float) -> None:
    """The estimate as a table, with what its cost assumes."""
    table = Table(box=None, pad_edge=False)
    for column in ("method", "codec", "bytes/passage", "store", "Redis", "$/month", "time"):
        table.add_column(column, justify="left" if column in ("method", "codec") else "right")
    for row in estimate.methods:
        table.add_row(
            row.method,
            row.codec,
            f"{row.store_bytes / max(1, estimate.passages):,.0f}",
            decimal(row.store_bytes),
            decimal(row.redis_bytes),
            f"{row.redis_bytes / 1e9 * gb_price:,.2f}",
            "" if row.seconds is None else _duration(row.seconds),
        )
    talk.print(
        f"{estimate.records:,} records, {estimate.failures:,} of them unusable: "
        f"{estimate.passages:,} different passages, {estimate.tokens:,} tokens, "
        f"{decimal(estimate.text_bytes)} of text"
    )
    talk.print(table)
    talk.print(
        f"time is of this machine, by a sample, into an empty store; Redis memory costs "
        f"{gb_price:g} $ per GB and month (--gb-price)",
        style="dim",
    )


def _left(summary: IndexSummary, size: int) -> str:
    if not 0 < summary.offset < size:
        return ""
    return f", {_duration(summary.seconds * (size - summary.offset) / summary.offset)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
