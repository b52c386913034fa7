"""The engine ray, on a real cluster of this machine and a real Redis, with a worker killed."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from pyarrow import parquet

from ragpack.cache_store.memory import MemoryStore
from ragpack.corpus import Corpus
from ragpack.errors import ConfigError
from ragpack.index import Cluster, IndexJob, IndexPlan
from ragpack.index.cluster import Work
from ragpack.index.worker import Worker
from ragpack.keys import make_keys
from ragpack.models import load_encoder
from ragpack.models.dense import DenseEncoder
from ragpack.registry import open_store
from ragpack.retrievers.faiss import FaissRetriever
from ragpack.types import Passage

PASSAGES = 120
JOB = """
import sys
from pathlib import Path
from ragpack.corpus import Corpus
from ragpack.index import Cluster, IndexJob, IndexPlan
from ragpack.registry import open_store

url, corpus, folder = sys.argv[1:]
if __name__ == "__main__":
    job = IndexJob(IndexPlan(corpus=Corpus(Path(corpus)), folder=Path(folder), namespace="ns"))
    result = job.run(open_store(url), cluster=Cluster(url, workers=2, batch=4))
    print(result.summary.passages, result.summary.failures)
"""


@pytest.fixture
def passages_file(tmp_path) -> Path:
    path = tmp_path / "corpus.jsonl"
    rows = (
        {"id": str(n), "text": f"Item {n} is kept. " * (1 + n % 5) + "\ud800" * (n == 3)}
        for n in range(PASSAGES)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def start(until):
    """Starts the job, and waits for its first entries."""
    jobs: list[subprocess.Popen[str]] = []

    def started(command, store) -> subprocess.Popen[str]:
        for _ in range(3):  # Ray gives itself 30 seconds, and a busy machine needs more
            job = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            jobs.append(job)
            until(lambda job=job: store.stats().entries or job.poll() is not None, 300)
            if job.poll() is None:
                return job
        raise AssertionError("the job did not come to its first entries")

    yield started
    for job in jobs:
        job.kill()
        job.communicate()


def _kill_a_worker(job: subprocess.Popen[str]) -> None:
    workers = [
        process
        for process in psutil.Process(job.pid).children(recursive=True)
        if "MapWorker" in " ".join(process.cmdline())
    ]
    workers[0].kill()


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_that_was_done(
    tmp_path, redis_url, passages_file, start
) -> None:
    folder = tmp_path / "index"
    command = [sys.executable, "-c", JOB, redis_url, str(passages_file), str(folder)]
    store = open_store(redis_url)
    job = start(command, store)
    _kill_a_worker(job)
    assert store.stats().entries < 2 * PASSAGES
    out, _ = job.communicate(timeout=300)
    assert (job.returncode, out) == (0, f"{PASSAGES} 0\n")

    alone = MemoryStore()
    plan = IndexPlan(corpus=Corpus(passages_file), folder=tmp_path / "alone", namespace="ns")
    IndexJob(plan).run(alone)
    keys = sorted(alone.scan("ns"))
    assert sorted(store.scan("ns")) == keys
    assert [bytes(v) for v in store.get_many(keys)] == [bytes(v) for v in alone.get_many(keys)]
    assert len(FaissRetriever.load(folder)) == PASSAGES

    rows = parquet.read_table(folder / "job-log").to_pylist()
    assert sorted(row["key"] for row in rows) == keys
    assert {row["status"] for row in rows} <= {"computed", "hit"}
    assert not list(folder.glob(".staged-*"))
    store.close()


def test_a_worker_takes_the_precision_of_the_machine_that_asks(monkeypatch) -> None:
    monkeypatch.setenv("RAGPACK_ENCODER_DTYPE", "float32")
    worker = Worker(Work("all-minilm-l6-v2", (), "memory://", "ns", None, "bfloat16"))
    results = worker(pa.Table.from_pylist([{"id": b"a", "title": b"", "text": b"x", "offset": 1}]))
    mixed = DenseEncoder(load_encoder("all-minilm-l6-v2", dtype="bfloat16"))
    [key] = make_keys("ns", mixed.kind, mixed.fingerprint, [Passage("a", "x")])
    assert results.column("key").to_pylist() == [str(key)]


@pytest.mark.parametrize("url", ["memory://", "lmdb:///tmp/store"])
def test_a_store_of_one_machine_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="needs a store that every machine reaches"):
        Cluster(url)


def test_no_workers_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Cluster("redis://localhost", 0)
