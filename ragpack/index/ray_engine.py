"""The indexing step on a Ray cluster, with Redis as the only thing that its machines share.

The corpus is staged as Parquet, Ray Data reads it where there is room to work, and each actor
checks, computes and stores by itself (see :mod:`ragpack.index.worker`); only keys and what became
of them come back, into a job log. A dead actor is replaced and its batch given out again; started
again after a crash, the job finds what is in the store.
"""

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from ragpack.corpus import Item
from ragpack.errors import CacheUnavailable
from ragpack.index.account import Progress
from ragpack.index.cluster import Cluster, Work
from ragpack.index.harvest import Harvest
from ragpack.index.job_log import JobLog
from ragpack.index.staging import stage
from ragpack.index.worker import Worker

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read on import; nothing is sent home
import ray
import ray.data
import ray.exceptions

__all__ = ["fill"]

_ROWS = 8192  # of a staged file


def fill(
    cluster: Cluster, items: Iterable[Item], work: Work, folder: Path, progress: Progress | None
) -> Harvest:
    """Fill the store with the artifacts of every usable item.

    Args:
        cluster: where.
        items: the corpus.
        work: what to make of each passage.
        folder: for staged files, on a file system that every machine has; the job log stays.
        progress: called with the account so far, in no order of passages.

    Raises:
        CacheUnavailable: the store cannot be written; run it again to go on from there.
    """
    harvest = Harvest(progress)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".staged-") as staged:
        paths = stage(items, Path(staged), _ROWS)
        if paths:
            with JobLog(folder / "job-log") as log, _connected(cluster.workers):
                for results in _stream(paths, work, cluster.workers, cluster.batch):
                    log.add(results)
                    harvest.add(results.to_pylist())
    return harvest


def _stream(paths: list[str], work: Work, workers: int, batch: int) -> Iterator[pa.Table]:
    """Results as they come; Ray holds back reading while the actors are behind."""
    ray.data.DataContext.get_current().enable_progress_bars = False  # we have our own
    # The reader joins small files into one block, which a single actor would get.
    passages = ray.data.read_parquet(paths).repartition(target_num_rows_per_block=batch)
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    results = passages.map_batches(
        Worker,
        fn_constructor_args=(work,),
        batch_size=batch,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
        num_gpus=1 if resources.get("GPU") else 0,
    )
    try:
        yield from results.iter_batches(batch_size=None, batch_format="pyarrow")
    except ray.exceptions.RayError as error:
        raise CacheUnavailable(f"the cluster's job stopped: {error}") from error


@contextmanager
def _connected(workers: int) -> Iterator[None]:
    """Ray, connected; a cluster that is started here ends with the job."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ours = not ray.is_initialized()
    if ours:
        away = "RAY_ADDRESS" in os.environ
        local: dict[str, Any] = {"num_cpus": workers + 1, "include_dashboard": False}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **({} if away else local))
    with redirect_stdout(sys.stderr):  # Ray tells of dead workers on stdout, to the very end
        try:
            yield
        finally:
            if ours:
                ray.shutdown()
