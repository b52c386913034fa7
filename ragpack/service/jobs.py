"""Work that goes on after its request was answered."""

import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ragpack.errors import RagpackError
from ragpack.service.problems import Problem
from ragpack.service.schemas import Job

__all__ = ["Jobs"]

_log = logging.getLogger(__name__)
_WAITING = 64
_REMEMBERED = 1000


class Jobs:
    """Jobs one after another, in the order of their coming; the last thousand can be asked for.

    They live in this process: closing finishes those that wait, a crash loses them.
    """

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, tuple[str, Job]] = OrderedDict()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "ragpack-job")

    def start(self, namespace: str, work: Callable[[], dict[str, Any]]) -> Job:
        """Put ``work`` in the queue; what it returns becomes the job's result.

        Raises:
            Problem: 429 where too many wait.
        """
        with self._lock:
            waiting = sum(job.status in ("queued", "running") for _, job in self._jobs.values())
            if waiting >= _WAITING:
                detail = f"{waiting} jobs wait already; try again when they are done"
                raise Problem(429, "Overloaded", detail, headers={"Retry-After": "10"})
            job = Job(id=f"job-{uuid.uuid4().hex}", status="queued")
            self._jobs[job.id] = (namespace, job)
            while len(self._jobs) > _REMEMBERED:
                self._jobs.popitem(last=False)
        self._thread.submit(self._run, namespace, job, work)
        return job

    def find(self, namespace: str, job_id: str) -> Job:
        """A job of ``namespace`` as it stands.

        Raises:
            Problem: 404; another namespace's job is no different from none.
        """
        with self._lock:
            owner, job = self._jobs.get(job_id, ("", None))
        if job is None or owner != namespace:
            raise Problem(404, "NotFound", "there is no such job")
        return job

    def close(self) -> None:
        """Finish the jobs that wait."""
        self._thread.shutdown()

    def _run(self, namespace: str, job: Job, work: Callable[[], dict[str, Any]]) -> None:
        self._set(namespace, job, {"status": "running"})
        try:
            self._set(namespace, job, {"status": "done", "result": work()})
        except (RagpackError, Problem) as error:
            self._set(namespace, job, {"status": "failed", "error": str(error)})
        except Exception:  # a fault of ours: the log has it, the client a status
            _log.exception("a job failed")
            self._set(namespace, job, {"status": "failed", "error": "the service failed"})

    def _set(self, namespace: str, job: Job, change: dict[str, Any]) -> None:
        with self._lock:
            if job.id in self._jobs:
                self._jobs[job.id] = (namespace, job.model_copy(update=change))
