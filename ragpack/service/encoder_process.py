"""Runs encoders in a process of their own, with an interpreter of its own.

torch hands the interpreter's lock back at every operation and then waits for it. Beside busy
request threads it waits most of the time, so a thread is the wrong place for an encoder. Until the
process has loaded an encoder, and where it dies, the encoder runs in the calling thread: no request
fails or waits for the process.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragpack.errors import UnsupportedModel

if TYPE_CHECKING:
    from ragpack.models.encoder import Recipe, SentenceEncoder

__all__ = ["EncoderProcess"]

_log = logging.getLogger(__name__)


class EncoderProcess:
    """One process for all encoders of a service; may be called from several threads.

    What is sent to it is how an encoder was loaded, never its weights: it loads the same files. One
    that dies at work is started again; one that dies before that stays away.

    Args:
        died: told when a process died at work.
    """

    def __init__(self, died: Callable[[], None]) -> None:
        self._died = died
        self._lock = threading.Lock()
        self._pool = _pool()
        self._loaded: dict[str, Future[int]] = {}

    def encode(self, encoder: "SentenceEncoder", texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [len(texts), d], as ``encoder`` itself makes them."""
        pool, loaded = self._loading(encoder)
        if not loaded.done() or loaded.exception() is not None:
            return encoder.encode(texts)
        try:
            return pool.submit(_encode, encoder.recipe, list(texts)).result()
        except BrokenProcessPool:
            self._restart(pool)
            return encoder.encode(texts)

    def pid(self) -> int:
        """The number of the process; 0 while none has loaded an encoder."""
        with self._lock:
            done = [loading for loading in self._loaded.values() if loading.done()]
        return next((loading.result() for loading in done if loading.exception() is None), 0)

    def close(self) -> None:
        """Finish what is under way, the loading of an encoder too, and end the process."""
        self._pool.shutdown()

    def _loading(self, encoder: "SentenceEncoder") -> tuple[ProcessPoolExecutor, Future[int]]:
        """The process, and whether it has loaded ``encoder`` yet; the first call lets it begin."""
        digest = encoder.fingerprint.digest
        with self._lock:
            if digest not in self._loaded:
                self._loaded[digest] = self._load(encoder.recipe, digest)
            return self._pool, self._loaded[digest]

    def _load(self, recipe: "Recipe", digest: str) -> Future[int]:
        try:
            loading = self._pool.submit(_load, recipe, digest)
        except BrokenProcessPool as error:  # it died since its last work
            loading = Future()
            loading.set_exception(error)
        loading.add_done_callback(_say_why_not)
        return loading

    def _restart(self, broken: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is not broken:
                return
            _log.warning("the process that runs the encoders died; another one is started")
            self._died()
            broken.shutdown(wait=False)
            self._pool, self._loaded = _pool(), {}


def _pool() -> ProcessPoolExecutor:
    """One process, started with its first work; a forked one would inherit torch's dead threads."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin)


def _say_why_not(loading: Future[int]) -> None:
    if (error := loading.exception()) is not None:
        _log.warning("an encoder runs in the service's own process, which is slower: %s", error)


# In the process


def _begin() -> None:
    """End with the service alone, however it ends, and leave a core to it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch  # here, because the service's own process may never need it

    torch.set_num_threads(max(1, torch.get_num_threads() - 1))


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


@lru_cache
def _loaded(recipe: "Recipe") -> "SentenceEncoder":
    from ragpack.models import load_encoder

    return load_encoder(*recipe)


def _load(recipe: "Recipe", digest: str) -> int:
    """The number of this process, once it has loaded the encoder."""
    if _loaded(recipe).fingerprint.digest != digest:
        raise UnsupportedModel(f"the files of {recipe.name} changed since the service started")
    return os.getpid()


def _encode(recipe: "Recipe", texts: Sequence[str]) -> NDArray[np.float32]:
    return _loaded(recipe).encode(texts)
