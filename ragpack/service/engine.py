"""What the routes call: one store, one set of models, a packer for each method and tenant."""

import asyncio
import contextvars
import copy
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from ragpack import registry
from ragpack.errors import CacheUnavailable, RagpackError
from ragpack.models import load_token_counter
from ragpack.pipeline import ContextPacker
from ragpack.service.catalogue import Catalogue
from ragpack.service.choice import tuned
from ragpack.service.problems import Problem
from ragpack.service.settings import Settings
from ragpack.types import Passage

__all__ = ["Engine"]

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)
_PROBE = "ready"


class Engine:
    """Everything that outlives a request. Its methods may be called from several threads.

    Raises:
        UnknownPluginError: a method or a store that is not registered.
        CacheUnavailable: the store's folder cannot be opened.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.methods = Catalogue(settings.methods)
        self.store = registry.open_store(settings.store)
        self.counter = load_token_counter(settings.tokenizer)
        self._packers: dict[tuple[str, str], ContextPacker] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(settings.limits.threads, "ragpack-serve")
        self._models = "loading"

    def packer(
        self,
        method: str,
        namespace: str,
        settings: Mapping[str, Any] | None = None,
        deadline_ms: float | None = None,
    ) -> ContextPacker:
        """A packer for one request of ``namespace``; all of a method and tenant share a cache.

        Raises:
            UnknownPluginError: no such method.
            UnsupportedModel: the method cannot run here.
            ConfigError: a setting that the method does not have.
        """
        compressor = self.methods[method]
        with self._lock:
            if (shared := self._packers.get((method, namespace))) is None:
                shared = ContextPacker(
                    compressor, store=self.store, tokenizer=self.counter, namespace=namespace
                )
                self._packers[method, namespace] = shared
        packer = copy.copy(shared)
        packer.compressor = tuned(compressor, settings or {})
        most = self.settings.limits.deadline_ms
        packer.deadline_ms = min(deadline_ms or most, most)
        return packer

    def search(self, index: str, namespace: str, query: str, k: int) -> list[Passage]:
        """The ``k`` best passages of an index of ``namespace``.

        Raises:
            Problem: there is no such index.
        """
        raise Problem(404, "NotFound", f"there is no index {index!r}")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` in a thread, in the request's context, so that traces hang together."""
        call = partial(contextvars.copy_context().run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def start(self, job: Callable[[], None]) -> None:
        """Run ``job`` in a thread and do not wait for it."""
        self._threads.submit(job)

    def warm(self) -> None:
        """Load every model, so that the first request does not wait for it."""
        try:
            for method in self.methods.all():
                if method.compressor is not None:
                    query = _PROBE if method.factory.query_aware else None
                    method.compressor.compress([Passage(_PROBE, "A sentence.")], query)
            self._models = "ok"
        except RagpackError as error:
            _log.exception("a model cannot be used")
            self._models = str(error).partition("\n")[0]

    def checks(self) -> dict[str, str]:
        """Whether each part that a request needs is there: "ok", or what is wrong."""
        try:
            self.store.contains_many([_PROBE])
            store = "ok"
        except CacheUnavailable:
            store = "the store does not answer"
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
        for packer in self._packers.values():
            packer.close()
        self.store.close()
