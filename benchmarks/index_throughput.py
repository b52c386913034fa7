"""Indexing against the bare encoder on the same batches, and its peak memory over corpus size.

Each round encodes the same passages in the same batches: with the encoder alone, with
sentence-transformers' own ``encode``, and with the whole job (keys, frames, an empty embedded
store, FAISS). Memory is the peak of a process of its own that indexes synthetic passages; their
numbers are given after ``--memory``. Run from the repository's root:

    python benchmarks/index_throughput.py --runs 5 --passages 1024
    python benchmarks/index_throughput.py --runs 1 --passages 64 --memory 2000 20000
"""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice

from common import corpus, interleave, parser, report, spread
from sentence_transformers import SentenceTransformer

from ragpack.cache import ArtifactCache
from ragpack.corpus import Record
from ragpack.index import Indexer
from ragpack.models import load_encoder, resolve
from ragpack.models.dense import DenseEncoder
from ragpack.registry import load, open_store
from ragpack.types import Passage

ENCODER = "all-minilm-l6-v2"
BATCH = 512


def synthetic(count: int) -> Iterator[Passage]:
    """Different short passages, made as they are asked for."""
    return (
        Passage(str(n), f"Item {n} stands in hall {n % 97}, row {n % 31}.") for n in range(count)
    )


def index(passages: Iterator[Passage] | Sequence[Passage]) -> None:
    """The whole job into an empty store."""
    encoder = load_encoder(ENCODER)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"lmdb://{folder}/store")
        vectors = ArtifactCache(DenseEncoder(encoder), store, namespace="benchmark")
        retriever = load("retrievers", "faiss")(encoder)
        records = (Record(n, passage, 0) for n, passage in enumerate(passages, 1))
        Indexer(retriever, vectors, batch=BATCH).run(records)
        retriever.save(f"{folder}/index")
        vectors.close()
        store.close()


def batches(passages: Sequence[Passage]) -> Iterator[list[str]]:
    """The texts of the job's batches."""
    texts = iter([passage.full_text for passage in passages])
    while batch := list(islice(texts, BATCH)):
        yield batch


def throughput(count: int, runs: int) -> dict[str, object]:
    """Passages a second of the three arms, in turn."""
    passages = corpus(count)
    encoder = load_encoder(ENCODER)
    plain = SentenceTransformer(str(resolve(ENCODER).path), local_files_only=True)
    arms = {
        "bare_encoder": lambda: [encoder.encode(batch) for batch in batches(passages)],
        "sentence_transformers": lambda: [
            plain.encode(batch, show_progress_bar=False) for batch in batches(passages)
        ],
        "index": lambda: index(passages),
    }
    times = {name: spread(values) for name, values in interleave(arms, runs).items()}
    job = times["index"]["median"]
    return {
        "passages": len(passages),
        "milliseconds": times,
        "passages_per_second": round(len(passages) / job * 1000, 1),
        "of_bare_encoder": round(times["bare_encoder"]["median"] / job, 3),
        "of_sentence_transformers": round(times["sentence_transformers"]["median"] / job, 3),
    }


def peak_memory(count: int) -> float:
    """Peak MB of a process that indexes ``count`` synthetic passages."""
    command = [sys.executable, __file__, "--child", str(count)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return float(done.stdout)


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--passages", type=int, default=1024)
    options.add_argument("--memory", type=int, nargs="*", default=[])
    options.add_argument("--child", type=int, help="used by --memory itself")
    chosen = options.parse_args()
    if chosen.child is not None:
        index(synthetic(chosen.child))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    figures = throughput(chosen.passages, chosen.runs)
    figures["peak_mb"] = {count: round(peak_memory(count), 1) for count in chosen.memory}
    report(figures)


if __name__ == "__main__":
    main()
