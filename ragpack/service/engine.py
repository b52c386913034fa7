"""What the routes call: one store, one set of models, a packer for each method and tenant."""

import asyncio
import contextvars
import copy
import gc
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from fastapi import Response

from ragpack import config, registry
from ragpack.cache import ArtifactCache
from ragpack.errors import CacheUnavailable
from ragpack.index.precomputable import require_precomputable
from ragpack.models import load_encoder, load_token_counter
from ragpack.models.dense import DenseEncoder
from ragpack.pipeline import ContextPacker
from ragpack.protocols import Compressor
from ragpack.report import PackedContext
from ragpack.service.caller import Caller
from ragpack.service.catalogue import Catalogue
from ragpack.service.choice import Weighing, tuned
from ragpack.service.encoders import Encoders
from ragpack.service.indexes import Indexes
from ragpack.service.jobs import Jobs
from ragpack.service.metrics import Metrics
from ragpack.service.recent import RecentArtifacts
from ragpack.service.schemas import Answer, MethodChoice
from ragpack.service.settings import Settings
from ragpack.types import Passage

if TYPE_CHECKING:
    from ragpack.handoff.vllm import VLLMPrompts

__all__ = ["Engine"]

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)
_PROBE = "ready"
_TEXT = "A sentence. Another one."
"""Two, since one alone would not let the encoders' process begin."""


class _Packer(ContextPacker):
    """A packer that counts what each request did."""

    metrics: Metrics

    def tuned(
        self, compressor: Compressor, min_relevance: float | None, deadline_ms: float
    ) -> "_Packer":
        """A packer for one request, over the same cache: other ways to select."""
        packer = copy.copy(self)
        packer.compressor, packer.deadline_ms = compressor, deadline_ms
        packer.min_relevance = min_relevance
        return packer

    def pack(
        self, query: str, passages: Sequence[Passage], *, budget: int | None = None
    ) -> PackedContext:
        packed = super().pack(query, passages, budget=budget)
        self.metrics.packed(packed.report)
        return packed


class Engine:
    """Everything that outlives a request. Its methods may be called from several threads.

    Raises:
        UnknownPluginError: a method or a store that is not registered.
        CacheUnavailable: the store's folder cannot be opened.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self._encoders = Encoders(settings, metrics)
        self._encoder = self._encoders.shared(load_encoder(settings.encoder))
        self.methods = Catalogue(settings, self._encoders)
        self.indexes = Indexes(settings.indexes, self._encoder)
        self.jobs = Jobs()
        self.store = registry.open_store(settings.store)
        self._recent = RecentArtifacts(settings.recent_bytes, settings.recent_seconds)
        self._counter = load_token_counter(settings.tokenizer)
        self._packers: dict[tuple[str, str], _Packer] = {}
        self._vectors: dict[str, ArtifactCache] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(settings.limits.threads, "ragpack-serve")
        self._models = "loading"

    def packer(
        self, choice: MethodChoice, caller: Caller, *, weighing: bool = False
    ) -> ContextPacker:
        """A packer for one request; the requests of a method and a tenant share a cache.

        With ``weighing`` its compressor is a :class:`~ragpack.service.choice.Weighing`.

        Raises:
            UnknownPluginError: no such method.
            UnsupportedModel: the method cannot run here.
            ConfigError: a setting that the method does not have.
        """
        shared = self._shared(choice.method, caller.namespace)
        method = tuned(shared.compressor, choice.settings)
        most = self.settings.limits.deadline_ms
        return shared.tuned(
            Weighing(method) if weighing else method,
            choice.min_relevance,
            min(choice.deadline_ms or most, most),
        )

    def _shared(self, method: str, namespace: str) -> _Packer:
        with self._lock:
            if (packer := self._packers.get((method, namespace))) is None:
                packer = self._packers[method, namespace] = _Packer(
                    self.methods.own(method),
                    store=self.store,
                    tokenizer=self._counter.apart(),
                    namespace=namespace,
                    recent=self._recent,
                )
                packer.metrics = self.metrics
            return packer

    @cached_property
    def prompts(self) -> "VLLMPrompts":
        """Writes prompts of soft tokens; reads the decoder's embedding table on first use.

        Raises:
            ConfigError: the decoder is not there.
            UnsupportedModel: its embeddings cannot be handed on.
        """
        from ragpack.handoff.vllm import VLLMPrompts

        return VLLMPrompts(self.settings.tokenizer)

    def storing(self, method: str, namespace: str) -> ArtifactCache:
        """The cache of a method that can be computed before any query is known.

        Raises:
            UnknownPluginError: no such method.
            UnsupportedModel: the method cannot run here.
            ConfigError: it reads the query, or stores nothing.
        """
        require_precomputable(self.methods[method])
        return self._shared(method, namespace).cache

    def forget(self, passage: Passage, namespace: str) -> int:
        """Delete what is stored for a passage without regard to a query; how much there was.

        Raises:
            CacheUnavailable: the store does not answer.
        """
        able = [method.compressor for method in self.methods.all() if method.compressor]
        names = [method.name for method in able if method.cached and not method.query_aware]
        caches = [self.vectors(namespace), *(self.storing(name, namespace) for name in names)]
        return sum(cache.forget([passage]) for cache in caches)

    def vectors(self, namespace: str) -> ArtifactCache:
        """The cache of the vectors that indexes hold."""
        with self._lock:
            if (cache := self._vectors.get(namespace)) is None:
                cache = self._vectors[namespace] = ArtifactCache(
                    DenseEncoder(self._encoder),
                    self.store,
                    namespace=namespace,
                    secret=config.secret(),
                )
            return cache

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` in a thread, in the request's context, so that traces hang together."""
        call = partial(contextvars.copy_context().run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def answer(
        self, function: Callable[P, Answer], *args: P.args, **kwargs: P.kwargs
    ) -> Response:
        """What ``function`` returns, as JSON that the thread writes too.

        A thousand passages or a payload of soft tokens would hold the event loop, and with it
        every other request.
        """

        def written() -> Response:
            found = function(*args, **kwargs)
            return Response(found.model_dump_json(), media_type="application/json")

        return await self.run(written)

    def start(self, job: Callable[[], None]) -> None:
        """Run ``job`` in a thread and do not wait for it."""
        self._threads.submit(job)

    def warm(self) -> None:
        """Load every model, so that the first request does not wait for it."""
        try:
            for method in self.methods.all():
                if method.compressor is not None:
                    query = _PROBE if method.factory.query_aware else None
                    method.compressor.compress([Passage(_PROBE, _TEXT)], query)
            gc.collect()
            gc.freeze()  # models are half a million objects, half a second for each full collection
            self._models = "ok"
        except Exception:  # readiness has no one to raise to, and must not say "loading" for ever
            _log.exception("a model cannot be used")
            self._models = "a model cannot be used; the service's log says why"

    def checks(self) -> dict[str, str]:
        """Whether each part that a request needs is there: "ok", or what is wrong."""
        try:
            self.store.contains_many([_PROBE])
            store = "ok"
        except CacheUnavailable:
            store = "the store does not answer"
        self.metrics.store_up.set(store == "ok")
        return {"store": store, "models": self._models}

    def describe_models(self) -> list[dict[str, str]]:
        """The models in use, and for what."""
        rows = [{"id": self.settings.tokenizer, "used_for": "counting tokens"}]
        for method in self.methods.all():
            if method.compressor is not None and (model := method.compressor.fingerprint.model):
                rows.append({"id": model, "used_for": method.name})
        return rows

    def close(self) -> None:
        """Finish what is under way and close the store."""
        self._threads.shutdown()
        self.jobs.close()
        for cache in self._vectors.values():
            cache.close()
        for packer in self._packers.values():
            packer.close()
        self._encoders.close()
        self.store.close()
