"""How an indexing job shows its progress, and what it says at its end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.filesize import decimal
from rich.table import Table

from ragpack.cli.console import talk
from ragpack.cli.progress import duration, progress
from ragpack.index import Estimate, IndexJob, IndexResult, IndexSummary
from ragpack.text import plural

__all__ = ["describe", "indexing", "show_estimate", "show_result"]


@contextmanager
def indexing(job: IndexJob) -> Iterator[Callable[[IndexSummary], None]]:
    """Progress over the corpus's bytes; yields what the job calls with its account."""
    with progress("indexing", job.plan.corpus.size) as show:
        show(0, "opening the index")
        yield lambda summary: show(
            summary.offset, describe(summary, job.ratio.tokens(summary.characters))
        )


def describe(summary: IndexSummary, tokens: int) -> str:
    """Stage, passages done, tokens computed a second, share found in the store, bytes stored."""
    parts = [summary.stage] if summary.stage else []
    if summary.passages:
        parts.append(f"{plural(summary.passages, 'passage')} done")
    if tokens:
        parts.append(f"≈{tokens / (summary.seconds or 1e-9):,.0f} tokens/s")
    found, computed = summary.hits.total(), summary.computed.total()
    if found + computed:
        parts.append(f"{found / (found + computed):.0%} from the store")
    if summary.bytes:
        parts.append(f"{decimal(summary.bytes)} stored")
    return ", ".join(parts)


def show_result(result: IndexResult, folder: object) -> None:
    """What was done, by method."""
    summary = result.summary
    talk.print(
        f"{plural(summary.passages, 'passage')} in {summary.seconds:.1f} s, "
        f"{summary.added:,} new in {folder}"
    )
    for name in summary.computed | summary.hits:
        talk.print(f"  {name}: {summary.computed[name]} computed, {summary.hits[name]} from store")
    if result.recall is not None:
        share, k = result.recall.recall, result.recall.k
        talk.print(
            f"  recall@{k} against exact search: {share:.3f} ("
            f"{plural(result.recall.queries, 'query', 'queries')})"
        )
    if result.removed:
        talk.print(f"{plural(result.removed, 'passage')} removed from the index")
    for name, count in result.pruned.items():
        talk.print(f"  {name}: {plural(count, 'artifact')} removed from the store")
    if summary.failures:
        failed = plural(summary.failures, "record")
        talk.print(f"{failed} failed, see {result.dead_letters}", style="yellow")


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
            "" if row.seconds is None else duration(row.seconds),
        )
    talk.print(
        f"{plural(estimate.records, 'record')}, {estimate.failures:,} of them unusable: "
        f"{plural(estimate.passages, 'different passage')}, {plural(estimate.tokens, 'token')}, "
        f"{decimal(estimate.text_bytes)} of text"
    )
    talk.print(table)
    talk.print(
        f"time is of this machine, by a sample, into an empty store; Redis memory costs "
        f"{gb_price:g} $ per GB and month (--gb-price)",
        style="dim",
    )
