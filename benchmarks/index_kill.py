"""Indexing killed (SIGKILL) at random moments and started again, against an undisturbed run.

Each run is a process of its own, forked from one that has loaded the encoder, so that fifty starts
do not take longer than the job. A job that comes to its end before all kills are spent is followed
by another one into an empty folder. A journal in the order of events says which artifact was begun
to be computed, which the store took, and how many passages the job reported done. What is compared
at the end are all bytes of the stores and of the vector indexes. ``--longest`` says how soon a kill
comes: 0.03 kills one job over the whole corpus fifty times. Run from the repository's root:

    python benchmarks/index_kill.py --kills 50 --passages 30 --slice 2048
    python benchmarks/index_kill.py --kills 50 --longest 0.03
"""

import math
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from common import corpus, parser, report

from ragpack.cache import ArtifactCache
from ragpack.compressors.recomp_extractive import RecompExtractive
from ragpack.corpus import Record
from ragpack.index import Indexer, fill
from ragpack.keys import make_keys
from ragpack.models import load_encoder
from ragpack.models.dense import DenseEncoder
from ragpack.protocols import Buffer, CacheStore, Compressor
from ragpack.registry import load, open_store
from ragpack.types import Artifact, Passage

ENCODER = "all-minilm-l6-v2"
NAMESPACE = "benchmark"
MAXIMA = ("most_again_after_a_kill", "largest_batch")


class Journal:
    """Appends a line for each event; a line is in the file before the call returns."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, event: str, names: Sequence[str]) -> None:
        """One write for all lines, so that a kill leaves whole lines or none."""
        self._file.write("".join(f"{event} {name}\n" for name in names).encode())


class JournalledStore:
    """A store that notes what it has taken."""

    def __init__(self, store: CacheStore, journal: Journal) -> None:
        self._store = store
        self._journal = journal

    def put_many(self, entries: Mapping[str, Buffer], ttl: float | None = None) -> None:
        """Store, then note."""
        self._store.put_many(entries, ttl)
        self._journal.write("stored", list(entries))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def journalled(compressor: Compressor, journal: Journal) -> Compressor:
    """The same compressor, noting what it is about to compute."""
    compute = compressor.compress

    def compress(passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        keys = make_keys(NAMESPACE, compressor.kind, compressor.fingerprint, passages)
        journal.write("batch", [str(len(keys))])
        journal.write("computes", list(map(str, keys)))
        return compute(passages, query)

    compressor.compress = compress  # type: ignore[method-assign]
    return compressor


def job(passages: Sequence[Passage], folder: Path) -> None:
    """Index into ``folder``: vectors and sentence vectors."""
    encoder = load_encoder(ENCODER)
    journal = Journal(folder / "journal")
    journal.write("starts", [str(os.getpid())])
    store: Any = JournalledStore(open_store(f"lmdb://{folder}/store"), journal)
    vectors, sentences = (
        ArtifactCache(journalled(method, journal), store, namespace=NAMESPACE)
        for method in (DenseEncoder(encoder), RecompExtractive(encoder))
    )
    index = load("retrievers", "faiss")(encoder)
    records = (Record(line, passage, 0) for line, passage in enumerate(passages, 1))
    Indexer(index, vectors, [sentences]).run(
        records, lambda summary: journal.write("done", [str(summary.passages)])
    )
    index.save(folder / "index")


def run(work: Callable[[], None], seconds: float = math.inf) -> bool:
    """``work`` in a process of its own, killed after ``seconds`` of its CPU time.

    Returns whether it came to its end. (By the clock, a busy machine would kill it before it has
    done anything.)
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    ended = status = 0
    while not ended:
        time.sleep(0.005)
        if time.clock_gettime(_cpu_clock(child)) >= seconds:
            os.kill(child, signal.SIGKILL)
        ended, status = os.waitpid(child, os.WNOHANG)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("the job failed by itself, see its traceback above")
    return os.WIFEXITED(status)


def _cpu_clock(process: int) -> int:
    """The clock of a process's CPU time, as Linux numbers them (``clock_getcpuclockid``)."""
    return (~process << 3) | 2


def disturbed(
    passages: Sequence[Passage], folder: Path, kills: int, longest: float, dice: random.Random
) -> int:
    """The job, killed again and again until it comes to its end; how often it was."""
    for done in range(kills):
        if run(lambda: job(passages, folder), dice.uniform(0, longest)):
            return done
        sys.stderr.write(f"kill {done + 1} of {kills}\n")
    run(lambda: job(passages, folder))
    return kills


def broken_promises(journal: Path, passages: Sequence[Passage]) -> dict[str, int]:
    """What was computed again, and whether it had been stored or reported done before."""
    encoder = load_encoder(ENCODER)
    position: dict[str, int] = {}
    for method in (DenseEncoder(encoder), RecompExtractive(encoder)):
        keys = make_keys(NAMESPACE, method.kind, method.fingerprint, passages)
        position |= {str(key): number for number, key in reversed(list(enumerate(keys)))}
    computed: set[str] = set()
    stored: set[str] = set()
    counts = {"computed": 0, "computed_again": 0, "after_stored": 0, "after_reported": 0}
    again, batches, reported = [0], [0], 0
    for line in journal.read_text().splitlines():
        event, name = line.split()
        if event == "starts":
            again.append(0)
        elif event == "batch":
            batches.append(int(name))
        elif event == "done":
            reported = max(reported, int(name))
        elif event == "stored":
            stored.add(name)
        else:
            counts["computed"] += 1
            counts["computed_again"] += name in computed
            again[-1] += name in computed
            counts["after_stored"] += name in stored
            counts["after_reported"] += position[name] < reported
            computed.add(name)
    return counts | {"most_again_after_a_kill": max(again), "largest_batch": max(batches)}


def together(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The counts of several jobs: sums, and the largest of what is a maximum."""
    return {
        name: (max if name in MAXIMA else sum)(each[name] for each in counts) for name in counts[0]
    }


def entries(folder: Path) -> dict[str, bytes]:
    """Every entry of the store."""
    store = open_store(f"lmdb://{folder}/store")
    keys = sorted(store.scan(NAMESPACE))
    values = zip(keys, store.get_many(keys), strict=True)
    found = {key: bytes(value or b"") for key, value in values}
    store.close()
    return found


def files(folder: Path) -> dict[str, bytes]:
    """Every file of the vector index; a kill while saving leaves a folder of scraps beside them."""
    found = (folder / "index").iterdir()
    return {path.name: path.read_bytes() for path in found if path.is_file()}


def main() -> None:
    """Run all jobs and compare."""
    options = parser(__doc__)
    options.add_argument("--passages", type=int, help="of the corpus; all by default")
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--slice", type=int, help="characters between two writes")
    options.add_argument(
        "--longest", type=float, default=0.4, help="to a kill; 1 is the undisturbed job's CPU time"
    )
    chosen = options.parse_args()
    torch.set_num_threads(1)  # a fork does not take further threads along
    if chosen.slice is not None:
        fill.CHARACTERS["embeds"] = chosen.slice
    passages = corpus(chosen.passages)
    load_encoder(ENCODER)
    dice = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as scratch:
        calm = Path(scratch, "calm")
        calm.mkdir()
        run(lambda: job(passages, calm))
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = used.ru_utime + used.ru_stime
        expected = entries(calm), files(calm)
        kills: list[int] = []
        same: list[bool] = []
        counts: list[dict[str, int]] = []
        while sum(kills) < chosen.kills:
            rough = Path(scratch, f"rough-{len(kills)}")
            rough.mkdir()
            left = chosen.kills - sum(kills)
            kills.append(disturbed(passages, rough, left, chosen.longest * seconds, dice))
            same.append((entries(rough), files(rough)) == expected)
            counts.append(broken_promises(rough / "journal", passages))
        report(
            {
                "passages": len(passages),
                "undisturbed_cpu_seconds": round(seconds, 1),
                "entries": len(expected[0]),
                "kills": sum(kills),
                "kills_of_each_job": kills,
                "identical": all(same),
                "undisturbed": broken_promises(calm / "journal", passages),
                "killed": together(counts),
            }
        )


if __name__ == "__main__":
    main()
