"""A whole indexing job: a corpus on disk in, a searchable folder and a warm store out."""

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from ragpack import config, registry
from ragpack.cache import ArtifactCache
from ragpack.corpus import RECORD_TOKENS, Census, Corpus, DeadLetters, Item, Splitter
from ragpack.errors import ConfigError, InputError, RetrievalError
from ragpack.index.account import IndexSummary, Progress
from ragpack.index.cluster import Cluster, Work
from ragpack.index.harvest import Harvest
from ragpack.index.indexer import Indexer
from ragpack.index.precomputable import require_precomputable
from ragpack.index.recall import Recall, measure_recall
from ragpack.index.token_ratio import TokenRatio
from ragpack.models import load_token_counter
from ragpack.models.dense import DenseEncoder
from ragpack.pipeline import make_compressor
from ragpack.protocols import CacheStore, TokenCounter

if TYPE_CHECKING:
    from ragpack.models import SentenceEncoder

__all__ = ["IndexJob", "IndexPlan", "IndexResult"]

_log = logging.getLogger(__name__)

_LOCK = ".lock"
_SCRAPS = (".new-*", ".staged-*")
_PAGE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPlan:
    """What to index, how, and where to.

    Args:
        corpus: what to read.
        folder: the vector index; one that is there is added to.
        methods: whose artifacts to compute beforehand.
        encoder: name or path of the encoder whose vectors the index holds.
        factory: FAISS index factory string.
        search: what a search of that index spends, such as ``nprobe=16``; the kind's own default.
        recall: measure how many of so many nearest passages the index finds; None for not at all.
        namespace: tenant wall in the store; the configured one by default.
        split: most tokens of a passage; ``"auto"`` for as many as the encoder reads, and lines and
            rows left alone unless they are very long; ``"none"`` to split nothing.
        overlap: tokens that neighbouring passages of a document share.
        language: ISO 639 code for the sentence rules, where a record names no language.
        prune: remove passages that the corpus does not have, and their artifacts.
        failed: the dead-letter file; ``failed.jsonl`` in the folder by default.
    """

    corpus: Corpus
    folder: Path
    methods: Sequence[str] = (config.DEFAULT_METHOD,)
    encoder: str = config.DEFAULT_ENCODER
    factory: str = "Flat"
    search: str | None = None
    recall: int | None = None
    namespace: str | None = None
    split: int | Literal["auto", "none"] = "auto"
    overlap: int = 0
    language: str = "en"
    prune: bool = False
    failed: Path | None = None


@dataclass(frozen=True, slots=True)
class IndexResult:
    """What a job did.

    ``removed`` counts passages taken out of the index; ``pruned`` artifacts deleted from the
    store, by method; ``dead_letters`` is the file with what failed, if anything did; ``recall``
    is of the vector index, if it was to be measured.
    """

    summary: IndexSummary
    removed: int = 0
    pruned: Counter[str] = field(default_factory=Counter)
    dead_letters: Path | None = None
    recall: Recall | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready summary."""
        return self.summary.to_dict() | {
            "removed": self.removed,
            "pruned": dict(self.pruned),
            "failed_file": None if self.dead_letters is None else str(self.dead_letters),
            "recall": None if self.recall is None else self.recall.to_dict(),
        }


class IndexJob:
    """Carries out a plan; started again, it goes on from what the store has.

    Raises:
        ConfigError: a method stores nothing or reads the query, or a setting is wrong.
    """

    def __init__(self, plan: IndexPlan) -> None:
        from ragpack.models import load_encoder  # brings torch: only a job needs it

        self.plan = plan
        self._letters = plan.failed or plan.folder / "failed.jsonl"
        if plan.prune and plan.corpus.path.resolve() == self._letters.resolve():
            raise ConfigError(f"{self._letters} is only a part of a corpus: index it, then prune")
        self.encoder = load_encoder(plan.encoder)
        methods = (require_precomputable(make_compressor(name, {})) for name in plan.methods)
        self.compressors = [DenseEncoder(self.encoder), *methods]
        self.counter = load_token_counter(plan.encoder)
        self.ratio = TokenRatio(self.counter)
        self._splitter = _splitter(plan, self.encoder, self.counter)

    def passages(self) -> Iterable[Item]:
        """The corpus, with long documents split."""
        corpus = self.plan.corpus
        return self.ratio.watch(corpus if self._splitter is None else self._splitter.split(corpus))

    def run(
        self,
        store: CacheStore,
        progress: Progress | None = None,
        waiting: Callable[[], None] = lambda: None,
        cluster: Cluster | None = None,
    ) -> IndexResult:
        """Index the corpus.

        Args:
            store: keeps the artifacts.
            progress: called after each batch.
            waiting: called once if another job is at work on the same folder.
            cluster: computes the artifacts, in the same store; this process without one.

        Raises:
            InputError: the corpus holds no usable passage.
            CacheUnavailable: the store cannot be written; run it again to go on from there.
            RetrievalError: the folder cannot be written, or holds another encoder's index.
        """
        with _alone(self.plan.folder, waiting), self._caches(store) as caches:
            _sweep(self.plan.folder)
            result = self._run(caches, progress, cluster)
        summary = result.summary
        if not summary.passages:
            reasons = "; ".join(str(bad) for bad in summary.failed[:3])
            why = f": {reasons}" if reasons else ""
            raise InputError(f"{self.plan.corpus.path} holds no usable passage{why}")
        return result

    def _run(
        self, caches: Sequence[ArtifactCache], progress: Progress | None, cluster: Cluster | None
    ) -> IndexResult:
        retriever, census = self._retriever(), Census()
        letters = DeadLetters(self._letters)
        with letters:
            items = census.watch(self.passages())
            if cluster is None:
                job = Indexer(retriever, caches[0], caches[1:])
                summary = job.run(items, progress, letters.add)
            else:
                harvest = self._fill(cluster, caches[0].namespace, progress)
                job = Indexer(retriever, caches[0])
                summary = job.run(harvest.failures_among(items), progress, letters.add)
                harvest.add_to(summary)
            removed, pruned = self._tidy(retriever, census, caches)
            recall = self._finish(retriever, caches[0]) if summary.passages else None
        path = letters.path if letters.count else None
        return IndexResult(summary, removed, pruned, path, recall)

    def _fill(self, cluster: Cluster, namespace: str, progress: Progress | None) -> Harvest:
        """Have the cluster compute everything; what is left to do here is the vector index."""
        try:
            from ragpack.index.ray_engine import fill
        except ModuleNotFoundError as error:
            raise registry.missing_extra(error, "the engine ray") from error
        plan = self.plan
        work = Work(
            plan.encoder,
            tuple(plan.methods),
            cluster.store,
            namespace,
            config.secret(),
            config.encoder_dtype(),
        )
        return fill(cluster, self.passages(), work, plan.folder, progress)

    def _finish(self, retriever: Any, vectors: ArtifactCache) -> Recall | None:
        """Save the index; how well it finds, if that is asked for."""
        if self.plan.search is not None:
            retriever.tune(self.plan.search)
        retriever.save(self.plan.folder)
        k = self.plan.recall
        return None if k is None else measure_recall(retriever, vectors, k)

    def _tidy(
        self, retriever: Any, census: Census, caches: Sequence[ArtifactCache]
    ) -> tuple[int, Counter[str]]:
        """Take out what the corpus no longer has; passages taken out, artifacts deleted.

        Artifacts go before the index is saved: if the job is killed between the two, the next one
        finds the same passages to prune.
        """
        prune = self.plan.prune
        if prune and not census.complete:
            _log.warning("not pruned: records that cannot be read may be passages of the index")
            prune = False
        gone = census.missing(retriever) if prune else census.outdated(retriever)
        removed, pruned = retriever.remove(gone), Counter[str]()
        texts = retriever.unnamed() if prune else iter(())
        while page := list(islice(texts, _PAGE)):
            for cache in caches:
                pruned[cache.compressor.name] += cache.forget(page)
        return removed, pruned

    def _retriever(self) -> Any:
        kind, plan = registry.load("retrievers", "faiss"), self.plan
        if (plan.folder / "manifest.json").exists():
            return kind.load(plan.folder, self.encoder)
        return kind(self.encoder, factory=plan.factory)

    @contextmanager
    def _caches(self, store: CacheStore) -> Iterator[list[ArtifactCache]]:
        """A cache for each compressor, the encoder's first."""
        namespace, secret = self.plan.namespace or config.namespace(), config.secret()
        with ExitStack() as stack:
            caches = [
                ArtifactCache(compressor, store, namespace=namespace, secret=secret)
                for compressor in self.compressors
            ]
            for cache in caches:
                stack.callback(cache.close)
            yield caches


def _splitter(
    plan: IndexPlan, encoder: "SentenceEncoder", counter: TokenCounter
) -> Splitter | None:
    if plan.split == "none":
        return None
    if plan.split == "auto":
        tokens, record_tokens = encoder.window, RECORD_TOKENS
    else:
        tokens = record_tokens = plan.split
    return Splitter(
        counter,
        tokens,
        overlap=plan.overlap,
        record_tokens=record_tokens,
        language=plan.language,
    )


def _sweep(folder: Path) -> None:
    """Remove what a job that was killed has left half made."""
    for pattern in _SCRAPS:
        for scrap in folder.glob(pattern):
            shutil.rmtree(scrap, ignore_errors=True)


@contextmanager
def _alone(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the folder: of two jobs that read, change and save an index at once, one would lose."""
    lock = FileLock(folder / _LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    except OSError as error:
        raise RetrievalError(
            f"the index cannot be written to {folder}: {error.strerror}"
        ) from error
    try:
        yield
    finally:
        lock.release()
