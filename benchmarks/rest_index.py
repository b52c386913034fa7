"""How long do queries take while the service indexes, and how much longer does indexing take?

One connection asks ``/v1/compress`` over twenty stored passages, another query each time: alone,
then while ``/v1/index`` works on new passages. A second job has the service to itself. Run from the
repository's root:

    OMP_NUM_THREADS=1 python benchmarks/rest_index.py --passages 250
"""

import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import corpus, parser, report
from rest_load import serving, settle

from ragpack import Passage
from ragpack.cli.demo import questions
from ragpack.client import Client

_METHOD = "recomp-extractive"


def latencies(ask: Callable[[], object], until: Callable[[], bool]) -> dict[str, float]:
    """Milliseconds of calls one behind the other, for as long as ``until`` is not true."""
    times = []
    while not until():
        start = time.perf_counter()
        ask()
        times.append((time.perf_counter() - start) * 1000)
    names = {"p50": 50, "p99": 99, "max": 100}
    found = {name: round(float(np.percentile(times, share)), 1) for name, share in names.items()}
    return found | {"n": len(times)}


def indexed(client: Client, passages: list[Passage]) -> float:
    """Seconds of the job that adds ``passages``."""
    start = time.perf_counter()
    job = client.wait(client.index("bench", passages, methods=[_METHOD]))
    if job.status != "done":
        raise SystemExit(f"the job failed: {job}")
    return round(time.perf_counter() - start, 2)


def measure(client: Client, passages: list[Passage], count: int, seconds: int) -> dict[str, Any]:
    """Queries alone, queries beside a job, a job alone."""
    stored, beside, alone = passages[:20], passages[20 : 20 + count], passages[20 + count :]
    asked: Iterator[str] = (f"{s['question']} {n}" for n in itertools.count() for s in questions())

    def ask() -> object:
        return client.compress(next(asked), stored, method=_METHOD, top_n=12)

    ask()
    ends = time.perf_counter() + seconds
    quiet = latencies(ask, lambda: time.perf_counter() > ends)
    job: list[float] = []
    work = threading.Thread(target=lambda: job.append(indexed(client, beside)))
    work.start()
    busy = latencies(ask, lambda: not work.is_alive())
    return {
        "query alone, ms": quiet,
        "query beside a job, ms": busy,
        "job beside queries, s": job[0],
        "job alone, s": indexed(client, alone),
    }


def main() -> None:
    """Serve, index, ask."""
    options = parser(__doc__)
    options.add_argument(
        "--passages", type=int, default=250, help="of each of two jobs, 256 at most"
    )
    options.add_argument("--seconds", type=int, default=10, help="of queries alone")
    chosen = options.parse_args()
    passages = corpus(20 + 2 * chosen.passages)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        settings = {"store": f"lmdb://{place / 'store'}", "indexes": str(place / "indexes")}
        with serving(methods=[_METHOD], **settings) as address, Client(address) as client:
            settle()
            report(measure(client, passages, chosen.passages, chosen.seconds))


if __name__ == "__main__":
    main()
