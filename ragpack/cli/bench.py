"""``ragpack bench``: how good and how quick methods are on questions of your own."""

import json as jsonlib
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import ragpack
from ragpack import config, registry
from ragpack.bench.arms import Arm, Bm25, Method
from ragpack.bench.measures import Estimate
from ragpack.bench.quality import Measured, Quality, Row
from ragpack.bench.questions import Question, read_questions
from ragpack.cli.console import emit, talk
from ragpack.cli.options import Json
from ragpack.cli.progress import progress
from ragpack.errors import ConfigError, RagpackError
from ragpack.handoff import open_decoder

__all__ = ["app", "quality"]

app = typer.Typer(no_args_is_help=True, help="Measure methods on questions of your own.")

_PERCENT = ("words", "answer", "support", "f1")


@app.callback()
def _group() -> None:
    """Measure methods on questions of your own."""


@app.command()
def quality(
    qa: Annotated[Path, typer.Option("--qa", help="JSON Lines file of questions.")],
    questions: Annotated[
        int | None, typer.Option("--questions", help="Questions to draw; all by default.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw.")] = 0,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            help="Comma-separated, with settings as NAME?KEY=VALUE; all that run here by default.",
        ),
    ] = None,
    rates: Annotated[
        str, typer.Option("--rates", help="Shares of the words to keep, comma-separated.")
    ] = "0.05,0.116,0.189,0.286,0.5",
    read: Annotated[
        int, typer.Option("--read", min=0, help="Questions that the decoder reads, too.")
    ] = 0,
    decoder: Annotated[
        str, typer.Option("--decoder", help="Reads the contexts: model name or path.")
    ] = config.DEFAULT_DECODER,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for quality.json and quality.png.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare methods at equal shares of the words: answers kept, likelihood, time."""
    shares = _shares(rates)
    draw = _drawing() if out is not None else None
    asked = read_questions(qa, questions, seed)
    reader = open_decoder(decoder) if read else None
    arms, skipped = _arms(methods, asked[0])
    job = Quality(asked, shares, decoder=reader, reading=read)
    with _measuring(job.steps(len(arms))) as advance:
        job.advance = advance
        measured = [job.arm(arm) for arm in arms]
        rows = [job.without(), *(row for one in measured for row in one.rows), job.whole()]
    figures = _figures(asked, seed, measured, rows) | {"skipped": skipped}
    if out is not None and draw is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "quality.json").write_text(jsonlib.dumps(figures, indent=2) + "\n")
        draw(rows, out / "quality.png")
    for name, reason in skipped.items():
        talk.print(f"{name} is left out: {reason}", style="yellow", markup=False)
    if json:
        emit(figures)
        return
    _show(measured, rows)


@contextmanager
def _measuring(total: int) -> Iterator[Callable[[], None]]:
    """Yields what is to be called after each step."""
    with progress("measuring", total) as show:
        done = count(1)
        yield lambda: show(step := next(done), f"{step} of {total}")


def _shares(rates: str) -> list[float]:
    try:
        shares = sorted({float(rate) for rate in rates.split(",")})
    except ValueError as error:
        raise ConfigError(f"--rates takes numbers such as 0.1,0.3, not {rates!r}") from error
    if not all(0 < share <= 1 for share in shares):
        raise ConfigError(f"--rates must be above 0 and at most 1, not {rates}")
    return shares


def _drawing() -> Callable[[Sequence[Row], Path], None]:
    """What draws the plot; asked for first, so that nothing is measured in vain."""
    try:
        from ragpack.bench.plot import save_pareto
    except ModuleNotFoundError as error:
        raise registry.missing_extra(error, "the plot") from error
    return save_pareto


def _arms(methods: str | None, probe: Question) -> tuple[list[Arm], dict[str, str]]:
    """BM25 and the methods; of those not asked for by name the ones that cannot run are skipped."""
    arms: list[Arm] = [Bm25()]
    skipped: dict[str, str] = {}
    for name in methods.split(",") if methods else registry.names("compressors"):
        try:
            arm = Method(name)
            arm.rank(probe, arm.see(probe), range(len(probe.passages)))
        except RagpackError as error:
            if methods:
                raise
            skipped[name] = str(error).splitlines()[0]
        else:
            arms.append(arm)
    return arms, skipped


def _figures(
    questions: Sequence[Question], seed: int, measured: Sequence[Measured], rows: Sequence[Row]
) -> dict[str, Any]:
    return {
        "questions": len(questions),
        "seed": seed,
        "methods": {one.method: one.to_dict() for one in measured},
        "rows": [row.to_dict() for row in rows],
        "environment": {
            "command": shlex.join(["ragpack", *sys.argv[1:]]),
            "ragpack": ragpack.__version__,
            "python": platform.python_version(),
            "torch": version("torch"),
        },
    }


def _show(measured: Sequence[Measured], rows: Sequence[Row]) -> None:
    table = Table("method", "at", "least", "words", "answer kept", "support kept", "NLL", "F1")
    for row in rows:
        least = "" if row.min_relevance is None else f"{row.min_relevance:.2f}"
        table.add_row(row.method, f"{row.rate:.1%}", least, *_cells(row))
    talk.print(table)
    for one in measured:
        talk.print(f"{one.method}: {one.cold_ms:.0f} ms cold, {one.warm_ms:.0f} ms warm")
        if empty := one.selective.get("empty_without_gold"):
            talk.print(
                f"  min_relevance {one.min_relevance:.2f}: nothing is kept for "
                f"{empty.value:.0%} of the questions without their gold passages"
            )


def _cells(row: Row) -> Iterator[str]:
    for name in ("words", "answer", "support", "nll", "f1"):
        figure: Estimate | None = row.figures.get(name)
        if figure is None:
            yield ""
        elif name in _PERCENT:
            yield f"{figure.value:.1%} ({figure.low:.1%} to {figure.high:.1%})"
        else:
            yield f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"
