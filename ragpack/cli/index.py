"""``ragpack index``: a corpus in, a searchable index and a warm store out."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from ragpack import config, registry
from ragpack.cli.console import complain, emit, talk
from ragpack.cli.index_progress import indexing, show_estimate, show_result
from ragpack.cli.options import Json, Namespace, Store
from ragpack.corpus import Columns, Corpus
from ragpack.errors import ConfigError, InputError
from ragpack.index import (
    Cluster,
    IndexJob,
    IndexPlan,
    IndexResult,
    IndexSummary,
    Progress,
    estimate,
)
from ragpack.protocols import CacheStore

__all__ = ["index", "run_plan"]

_SHOWN = 20

Engine = Literal["local", "ray"]


def run_plan(
    plan: IndexPlan, store: CacheStore, cluster: Cluster | None = None, push: str | None = None
) -> IndexResult:
    """Carry out a plan, with progress on stderr and, if ``push`` names one, to a Pushgateway."""
    with talk.status(f"loading {plan.encoder}"):
        job = IndexJob(plan)
    with indexing(job) as show, _pushing(push, plan.folder.resolve().name) as tell:

        def progress(summary: IndexSummary) -> None:
            show(summary)
            tell(summary)

        return job.run(store, progress, _waiting, cluster)


def index(
    corpus: Annotated[
        Path,
        typer.Option(
            "--corpus", help="JSON Lines, Parquet, text, Markdown, a folder or a saved dataset."
        ),
    ],
    folder: Annotated[
        Path, typer.Option("--index", help="Folder to write the vector index to.")
    ] = Path("ragpack-index"),
    methods: Annotated[
        str, typer.Option("--methods", help="Methods to precompute, comma-separated.")
    ] = config.DEFAULT_METHOD,
    encoder: Annotated[
        str, typer.Option("--encoder", help="Whose vectors an index holds: a name or a path.")
    ] = config.DEFAULT_ENCODER,
    factory: Annotated[str, typer.Option("--factory", help="FAISS index factory.")] = "Flat",
    search: Annotated[
        str | None, typer.Option("--search", help="What a search spends: nprobe=16, efSearch=64.")
    ] = None,
    recall: Annotated[
        int | None, typer.Option("--recall", min=1, help="Measure recall at so many passages.")
    ] = None,
    engine: Annotated[
        Engine, typer.Option("--engine", help="local, or ray: a cluster around one Redis.")
    ] = "local",
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Of the engine ray, one CPU or GPU each.")
    ] = 2,
    store: Store = None,
    namespace: Namespace = None,
    id_field: Annotated[str | None, typer.Option("--id-field", help="Field of the id.")] = None,
    text_field: Annotated[str | None, typer.Option("--text-field", help="… of the text.")] = None,
    title_field: Annotated[
        str | None, typer.Option("--title-field", help="… of the title.")
    ] = None,
    metadata: Annotated[
        str | None, typer.Option("--metadata", help="Other fields to keep; all by default.")
    ] = None,
    split: Annotated[
        str, typer.Option("--split", help="Most tokens of a passage, or auto, or none.")
    ] = "auto",
    overlap: Annotated[
        int, typer.Option("--overlap", help="Tokens that neighbouring passages share.")
    ] = 0,
    language: Annotated[
        str, typer.Option("--language", help="Of the sentence rules, unless a record says.")
    ] = "en",
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove passages that are not in the corpus.")
    ] = False,
    failed: Annotated[
        Path | None,
        typer.Option("--failed", help="Dead-letter file; failed.jsonl in the index by default."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate time, bytes and cost; write nothing.")
    ] = False,
    sample: Annotated[
        int, typer.Option("--sample", min=1, help="Passages that --dry-run measures.")
    ] = 64,
    gb_price: Annotated[
        float, typer.Option("--gb-price", min=0, help="Dollars per GB of Redis and month.")
    ] = 10.0,
    push: Annotated[
        str | None, typer.Option("--push", help="Prometheus Pushgateway to tell of progress.")
    ] = None,
    json: Json = False,
) -> None:
    """Embed a corpus, build its vector index and precompute what methods need."""
    fields = None if metadata is None else _names(metadata)
    plan = IndexPlan(
        corpus=Corpus(corpus, Columns(id_field, text_field, title_field, fields)),
        folder=folder,
        methods=_names(methods),
        encoder=encoder,
        factory=factory,
        search=search,
        recall=recall,
        namespace=namespace,
        split=_tokens(split),
        overlap=overlap,
        language=language,
        prune=prune,
        failed=failed,
    )
    if dry_run:
        _estimate(plan, sample, gb_price, json)
    else:
        url = store or config.store_url()
        _index(plan, url, Cluster(url, workers) if engine == "ray" else None, push, json)


def _index(
    plan: IndexPlan, url: str, cluster: Cluster | None, push: str | None, json: bool
) -> None:
    opened = registry.open_store(url)
    try:
        result = run_plan(plan, opened, cluster, push)
    finally:
        opened.close()
    if json:
        emit(result.to_dict() | {"index": str(plan.folder)})
    else:
        show_result(result, plan.folder)
    for bad in result.summary.failed[:_SHOWN]:
        complain(InputError(str(bad)))
    if result.summary.failures:
        raise typer.Exit(1)


def _pushing(gateway: str | None, index: str) -> AbstractContextManager[Progress]:
    if gateway is None:
        return nullcontext(lambda _: None)
    try:
        from ragpack.index.push import MetricsPush
    except ModuleNotFoundError as error:
        raise registry.missing_extra(error, "--push") from error
    return MetricsPush(gateway, index)


def _estimate(plan: IndexPlan, sample: int, gb_price: float, json: bool) -> None:
    made = estimate(IndexJob(plan), sample=sample)
    if not made.passages:
        raise InputError(f"{plan.corpus.path} holds no usable passage")
    if json:
        emit(made.to_dict(gb_price))
    else:
        show_estimate(made, gb_price)


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _tokens(split: str) -> int | Literal["auto", "none"]:
    match split:
        case "auto" | "none":
            return split
        case _ if split.isdecimal():
            return int(split)
    raise ConfigError(f"--split takes a number of tokens, auto or none, not {split!r}")


def _waiting() -> None:
    talk.print("another job is at work on this index: waiting for its end")
