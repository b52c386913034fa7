"""The Ray engine with one worker and with two, on this machine.

Each round indexes the same passages into an empty Redis with one worker, then with two. Starting a
worker takes longer than computing a few hundred passages, so what is compared is the rate between
the first result that comes back and the last. Needs redis-server. Run from the repository's root:

    OMP_NUM_THREADS=1 python benchmarks/index_ray.py --runs 3 --passages 512
"""

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from common import corpus, parser, report, spread

from ragpack.corpus import Corpus
from ragpack.index import Cluster, IndexJob, IndexPlan, IndexSummary
from ragpack.registry import open_store

WORKERS = (1, 2)


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The URL of an empty server."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with redis.Redis(port=port) as client:
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.05)
    try:
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def timed(path: Path, folder: Path, url: str, workers: int, batch: int) -> tuple[float, float]:
    """Passages a second while the workers work, and seconds of the whole job."""
    told: list[tuple[float, int]] = []

    def note(summary: IndexSummary) -> None:
        if summary.passages > (told[-1][1] if told else 0):
            told.append((time.perf_counter(), summary.passages))

    start = time.perf_counter()
    store = open_store(url)
    plan = IndexPlan(corpus=Corpus(path), folder=folder, methods=())
    IndexJob(plan).run(store, note, cluster=Cluster(url, workers, batch))
    store.close()
    (first, some), (last, many) = told[0], max(told, key=lambda each: each[1])
    return (many - some) / (last - first), time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--passages", type=int, default=512)
    options.add_argument("--batch", type=int, default=16, help="passages given to a worker at once")
    options.set_defaults(runs=3)
    chosen = options.parse_args()
    rates: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    seconds: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    with tempfile.TemporaryDirectory() as name, redis_server(Path(name)) as url:
        path = Path(name, "corpus.jsonl")
        rows = [{"id": p.id, "title": p.title, "text": p.text} for p in corpus(chosen.passages)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for number in range(chosen.runs):
            for workers in WORKERS:
                with redis.Redis.from_url(url) as client:
                    client.flushall()
                folder = Path(name, f"index-{number}-{workers}")
                rate, whole = timed(path, folder, url, workers, chosen.batch)
                rates[workers].append(rate)
                seconds[workers].append(whole)
    gains = [two / one for one, two in zip(*rates.values(), strict=True)]
    report(
        {
            "passages": len(rows),
            "passages_per_second": {workers: spread(rates[workers]) for workers in WORKERS},
            "whole_job_seconds": {workers: spread(seconds[workers]) for workers in WORKERS},
            "two_workers_to_one": spread(gains),
        }
    )


if __name__ == "__main__":
    main()
