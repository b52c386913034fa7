"""Indexing against the bare models on the same batches, and its peak memory over corpus size.

Each round encodes the same passages in the same batches: with the encoder alone, with
sentence-transformers' own ``encode``, and with the whole job (keys, frames, an empty embedded
store, FAISS). ``--kv`` takes so many passages for the same with a decoder: its bare forward over
each passage behind the prompt's beginning, against the step that also makes KV artifacts of them
and stores them. Memory is the peak of a process of its own that indexes synthetic passages with a
tiny encoder; their numbers are given after ``--memory``. Run from the repository's root:

    python benchmarks/index_throughput.py --runs 5 --passages 256
    python benchmarks/index_throughput.py --runs 5 --passages 0 --kv 12
    python benchmarks/index_throughput.py --passages 0 --memory 10000 100000
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from zlib import crc32

import numpy as np
import torch
from common import corpus, interleave, parser, report, spread
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers.cache_utils import DynamicCache

from ragpack.cache import ArtifactCache
from ragpack.compressors.kv_reuse import KvReuse
from ragpack.corpus import Record
from ragpack.index import Indexer
from ragpack.index.fill import Filler
from ragpack.kv.encode import KVEncoder
from ragpack.models import load_encoder, resolve
from ragpack.models.batches import equal_batches
from ragpack.models.dense import DenseEncoder
from ragpack.protocols import TextEncoder
from ragpack.registry import load, open_store
from ragpack.types import Fingerprint, KVArtifact, Passage

ENCODER = "all-minilm-l6-v2"
BATCH = 512


def synthetic(count: int) -> Iterator[Passage]:
    """Different short passages, made as they are asked for."""
    return (
        Passage(str(n), f"Item {n} stands in hall {n % 97}, row {n % 31}.") for n in range(count)
    )


class TinyEncoder:
    """Vectors drawn by a text's checksum, so that memory and not arithmetic is measured."""

    dim = 32
    fingerprint = Fingerprint("tiny")

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [len(texts), dim]."""
        seeds = [crc32(text.encode()) for text in texts]
        rows = [np.random.default_rng(seed).random(self.dim, np.float32) for seed in seeds]
        return np.stack(rows)


def index(passages: Iterator[Passage] | Sequence[Passage], encoder: TextEncoder) -> None:
    """The whole job into an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"lmdb://{folder}/store")
        vectors = ArtifactCache(DenseEncoder(encoder), store, namespace="benchmark")
        retriever = load("retrievers", "faiss")(encoder)
        records = (Record(n, passage, 0) for n, passage in enumerate(passages, 1))
        Indexer(retriever, vectors, batch=BATCH).run(records)
        retriever.save(f"{folder}/index")
        vectors.close()
        store.close()


def decode(encoder: KVEncoder, rows: Sequence[Sequence[int]]) -> None:
    """The decoder's forward over each passage behind the prefix, and nothing else."""
    keys, values = encoder.before
    with torch.inference_mode():
        for batch in equal_batches([len(row) for row in rows], 2048):
            ids = torch.tensor([rows[number] for number in batch])
            before = (part[:, None].expand(-1, len(batch), -1, -1, -1) for part in (keys, values))
            positions = torch.arange(encoder.start, encoder.start + ids.shape[1])
            encoder.model.base_model(
                input_ids=ids,
                position_ids=positions.expand(ids.shape),
                past_key_values=DynamicCache(list(zip(*before, strict=True))),
                use_cache=True,
            )


def fill(method: KvReuse, passages: Sequence[Passage]) -> None:
    """KV artifacts of the passages into an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"lmdb://{folder}/store")
        filler = Filler(ArtifactCache(method, store, namespace="benchmark"))
        filler.fill(passages)
        filler.close()
        store.close()


def kv_throughput(count: int, runs: int) -> dict[str, object]:
    """Tokens a second of the bare forward and of the indexing step, in turn."""
    method, passages = KvReuse(), corpus(count)
    made = method.compress(passages, None)
    rows = [artifact.token_ids.tolist() for artifact in made if isinstance(artifact, KVArtifact)]
    arms = {
        "bare_decoder": lambda: decode(method.encoder, rows),
        "index": lambda: fill(method, passages),
    }
    return {"passages": count, "tokens": sum(map(len, rows)), **compared(arms, runs)}


def compared(arms: Mapping[str, Callable[[], object]], runs: int) -> dict[str, object]:
    """Wall-clock and CPU times of the arms, and in each round the others' share of the index's."""
    cpu: dict[str, list[float]] = {name: [] for name in arms}

    def noting(name: str, arm: Callable[[], object]) -> None:
        start = time.process_time()
        arm()
        cpu[name].append((time.process_time() - start) * 1000)

    wall = interleave({name: partial(noting, name, arm) for name, arm in arms.items()}, runs)
    for times in cpu.values():
        del times[0]  # the warm-up
    shares = {
        f"of_{name}{suffix}": spread(
            [a / b for a, b in zip(times[name], times["index"], strict=True)]
        )
        for suffix, times in (("", wall), ("_by_cpu", cpu))
        for name in arms
        if name != "index"
    }
    return {
        "milliseconds": {name: spread(times) for name, times in wall.items()},
        "cpu_milliseconds": {name: spread(times) for name, times in cpu.items()},
        **shares,
    }


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
        "index": lambda: index(passages, encoder),
    }
    return {"passages": len(passages), **compared(arms, runs)}


def peak_memory(count: int) -> float:
    """Peak MB of a process that indexes ``count`` synthetic passages."""
    command = [sys.executable, __file__, "--child", str(count)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return float(done.stdout)


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--passages", type=int, default=256, help="for the encoder")
    options.add_argument("--kv", type=int, default=0, help="passages for the decoder")
    options.add_argument("--memory", type=int, nargs="*", default=[])
    options.add_argument("--child", type=int, help="used by --memory itself")
    chosen = options.parse_args()
    if chosen.child is not None:
        index(synthetic(chosen.child), TinyEncoder())
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    figures: dict[str, object] = {}
    if chosen.passages:
        figures["encoder"] = throughput(chosen.passages, chosen.runs)
    if chosen.kv:
        figures["kv"] = kv_throughput(chosen.kv, chosen.runs)
    figures["peak_mb"] = {count: round(peak_memory(count), 1) for count in chosen.memory}
    report(figures)


if __name__ == "__main__":
    main()
