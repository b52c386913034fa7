"""The encoders of a service: loaded once, and run for many requests at a time."""

import logging
import threading
from functools import partial

from ragpack.models import SentenceEncoder
from ragpack.protocols import TextEncoder
from ragpack.service.batching import MergingEncoder
from ragpack.service.encoder_process import EncoderProcess
from ragpack.service.metrics import Metrics
from ragpack.service.settings import Settings

__all__ = ["Encoders"]

_log = logging.getLogger(__name__)


class Encoders:
    """Hands out, for an encoder, one that merges what its callers ask; safe in several threads."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._merges = settings.batching
        self._metrics = metrics
        self._process = self._started() if settings.batching and settings.encoder_process else None
        if self._process is not None:
            metrics.watch_encoders(self._process.pid)
        self._shared: dict[str, MergingEncoder] = {}
        self._lock = threading.Lock()

    def shared(self, encoder: TextEncoder) -> TextEncoder:
        """What stands for ``encoder``, the same for equal ones."""
        if not self._merges:
            return encoder
        with self._lock:
            digest = encoder.fingerprint.digest
            if digest not in self._shared:
                run = encoder.encode
                if self._process is not None and isinstance(encoder, SentenceEncoder):
                    run = partial(self._process.encode, encoder)
                self._shared[digest] = MergingEncoder(encoder, run, self._metrics)
            return self._shared[digest]

    def close(self) -> None:
        """Finish what is asked and stop."""
        for encoder in self._shared.values():
            encoder.close()
        if self._process is not None:
            self._process.close()

    def _started(self) -> EncoderProcess | None:
        try:
            return EncoderProcess(self._died)
        except (OSError, NotImplementedError) as error:  # a system without shared semaphores
            _log.warning("encoders run in the service's own process, which is slower: %s", error)
            return None

    def _died(self) -> None:
        self._metrics.failures.labels("EncoderProcessDied").inc()
