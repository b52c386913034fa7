"""``ragpack index``: a corpus in, a searchable index and a warm store out."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ragpack import config, registry
from ragpack.cache import ArtifactCache
from ragpack.cli.console import complain, emit, progress, talk
from ragpack.cli.options import Json, Namespace, Store
from ragpack.corpus import read_jsonl
from ragpack.errors import ConfigError, InputError
from ragpack.index import Indexer, IndexSummary
from ragpack.models import load_encoder
from ragpack.models.dense import DenseEncoder
from ragpack.pipeline import make_compressor
from ragpack.protocols import CacheStore, Compressor

__all__ = ["build_index", "index"]


def _precomputable(method: str) -> Compressor:
    """The compressor called ``method``, if anything of it can be computed without a query.

    Raises:
        ConfigError: it reads the query, or stores nothing.
    """
    compressor = make_compressor(method, {})
    if compressor.query_aware:
        raise ConfigError(f"{method} reads the query, so nothing of it can be computed beforehand")
    if not compressor.cached:
        raise ConfigError(f"{method} stores nothing, so there is nothing to index for it")
    return compressor


def build_index(
    corpus: Path,
    folder: Path,
    methods: list[str],
    store: CacheStore,
    *,
    encoder: str = config.DEFAULT_ENCODER,
    factory: str = "Flat",
    namespace: str | None = None,
) -> IndexSummary:
    """Index ``corpus`` into ``folder`` and ``store``; an index that is there is added to.

    Raises:
        InputError: the corpus cannot be read or holds no passage.
        CacheUnavailable: the store cannot be written.
        RetrievalError: the folder cannot be written, or holds another encoder's index.
    """
    text_encoder = load_encoder(encoder)
    kind = registry.load("retrievers", "faiss")
    exists = (folder / "manifest.json").exists()
    retriever = kind.load(folder, text_encoder) if exists else kind(text_encoder, factory=factory)
    compressors = [DenseEncoder(text_encoder), *(_precomputable(method) for method in methods)]
    with ExitStack() as stack:
        caches = [
            ArtifactCache(
                compressor,
                store,
                namespace=namespace or config.namespace(),
                secret=config.secret(),
            )
            for compressor in compressors
        ]
        for cache in caches:
            stack.callback(cache.close)
        bar = stack.enter_context(progress("indexing"))
        task = bar.add_task("", total=corpus.stat().st_size if corpus.exists() else None, done=0)
        job = Indexer(retriever, caches[0], caches[1:])
        summary = job.run(
            read_jsonl(corpus), lambda done, at: bar.update(task, completed=at, done=done)
        )
    if not summary.passages:
        reasons = "; ".join(str(bad) for bad in summary.failed[:3])
        raise InputError(f"{corpus} holds no usable passage{': ' + reasons if reasons else ''}")
    retriever.save(folder)
    return summary


def index(
    corpus: Annotated[Path, typer.Option("--corpus", help="JSON Lines file of passages.")],
    folder: Annotated[
        Path, typer.Option("--index", help="Folder to write the vector index to.")
    ] = Path("ragpack-index"),
    methods: Annotated[
        str, typer.Option("--methods", help="Methods to precompute, comma-separated.")
    ] = config.DEFAULT_METHOD,
    encoder: Annotated[str, typer.Option("--encoder")] = config.DEFAULT_ENCODER,
    factory: Annotated[str, typer.Option("--factory", help="FAISS index factory.")] = "Flat",
    store: Store = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """Embed a corpus, build its vector index and precompute what methods need."""
    chosen = [name for name in methods.split(",") if name]
    opened = registry.open_store(store or config.store_url())
    try:
        summary = build_index(
            corpus,
            folder,
            chosen,
            opened,
            encoder=encoder,
            factory=factory,
            namespace=namespace,
        )
    finally:
        opened.close()
    if json:
        emit(summary.to_dict() | {"index": str(folder)})
    else:
        _show(summary, folder)
    for bad in summary.failed:
        complain(InputError(f"{corpus}, {bad}"))
    if summary.failed:
        raise typer.Exit(1)


def _show(summary: IndexSummary, folder: Path) -> None:
    talk.print(
        f"{summary.passages} passages in {summary.seconds:.1f} s, {summary.added} new in {folder}"
    )
    for name in summary.computed | summary.hits:
        talk.print(f"  {name}: {summary.computed[name]} computed, {summary.hits[name]} from store")
    if summary.failed:
        talk.print(f"{len(summary.failed)} records failed:", style="yellow")
