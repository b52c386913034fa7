"""What FAISS index factories find, weigh and cost, on the real vectors of the corpus.

The questions of the evaluation data are searched among all passages: ``recall`` is the share of
the ten nearest of an exact search that an index finds, ``gold`` the share of the passages marked as
needed that are among its ten. Searches run one by one on one thread. ``float8`` rows have no FAISS
index: vectors reduced by PCA are rounded to float8 (E4M3) and searched exactly. Vectors come from
the store and are computed where it lacks them. Run from the repository's root:

    python benchmarks/index_factories.py --runs 5 --store lmdb:///tmp/vectors
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import faiss
import numpy as np
import torch
from common import DATA, corpus, interleave, parser, report
from numpy.typing import NDArray

from ragpack.cache import ArtifactCache
from ragpack.models import load_encoder
from ragpack.models.dense import DenseEncoder
from ragpack.protocols import TextEncoder
from ragpack.registry import open_store
from ragpack.retrievers.faiss_factory import make_index, train, tune
from ragpack.types import EmbedsArtifact, Passage

Vectors = NDArray[np.float32]
K = 10
INDEXES = (
    ("Flat", ""),
    ("SQfp16", ""),
    ("SQ8", ""),
    ("SQ4", ""),
    ("PCA256,SQfp16", ""),
    ("PCA192,SQfp16", ""),
    ("PCA128,SQfp16", ""),
    ("PCA64,SQfp16", ""),
    ("PCA256,SQ8", ""),
    ("PCA192,SQ8", ""),
    ("PCA128,SQ8", ""),
    ("PQ96x4", ""),
    ("IVF96,Flat", "nprobe=4"),
    ("IVF96,Flat", "nprobe=16"),
    ("IVF96,SQ8", "nprobe=16"),
    ("HNSW32", "efSearch=16"),
    ("HNSW32", "efSearch=64"),
    ("HNSW32,SQ8", "efSearch=64"),
)
FLOAT8 = (384, 256, 192, 128)


def unit(vectors: Vectors) -> Vectors:
    """Rows of length 1."""
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / lengths, np.float32)


def passage_vectors(encoder: TextEncoder, passages: Sequence[Passage], store: str) -> Vectors:
    """Vectors [n, d] by way of the store."""
    cache = ArtifactCache(DenseEncoder(encoder), open_store(store), namespace="default")
    found = [look.artifact for look in cache.fetch(passages, None)]
    cache.close()
    return unit(np.stack([made.vectors[0] for made in found if isinstance(made, EmbedsArtifact)]))


def questions() -> list[dict[str, Any]]:
    """The evaluation data's own."""
    lines = (DATA / "qa_dev.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def build(vectors: Vectors, factory: str, search: str) -> tuple[faiss.Index, float]:
    """An index, and the seconds it took."""
    start = time.perf_counter()
    index = make_index(vectors.shape[1], factory)
    train(index, factory, [vectors])
    seconds = time.perf_counter() - start
    if search:
        tune(index, search)
    return index, seconds


def one_by_one(index: faiss.Index, asked: Vectors) -> NDArray[np.int64]:
    """Rows [q, K] of the nearest."""
    return np.concatenate([index.search(asked[row : row + 1], K)[1] for row in range(len(asked))])


def float8(vectors: Vectors, asked: Vectors, dim: int) -> NDArray[np.int64]:
    """Rows [q, K] of the nearest among vectors kept as ``dim`` numbers of one byte."""
    reduce = faiss.PCAMatrix(vectors.shape[1], dim)
    reduce.train(vectors)
    reduce.b.clear()  # inner products do not bear being moved to the mean
    reduce.have_bias = False
    small = torch.from_numpy(reduce.apply(vectors)) * 256  # away from float8's subnormal numbers
    rounded = small.to(torch.float8_e4m3fn).float().numpy()
    rows: NDArray[np.int64] = np.argsort(-(reduce.apply(asked) @ rounded.T), axis=1)[:, :K]
    return rows


def found_of(true: Sequence[set[int]], rows: NDArray[np.int64]) -> float:
    """Mean share of the ``true`` rows that are found."""
    shares = [len(own & set(row)) / len(own) for own, row in zip(true, rows.tolist(), strict=True)]
    return round(float(np.mean(shares)), 4)


def main() -> None:
    """Build, search, print."""
    options = parser(__doc__)
    options.add_argument("--store", default="memory://")
    options.set_defaults(runs=5)
    chosen = options.parse_args()
    faiss.omp_set_num_threads(1)
    encoder, passages, asked = load_encoder("all-minilm-l6-v2"), corpus(), questions()
    vectors = passage_vectors(encoder, passages, chosen.store)
    queries = unit(encoder.encode([question["question"] for question in asked]))
    row_of = {passage.id: row for row, passage in enumerate(passages)}
    gold = [
        {row_of[one["id"]] for one in question["passages"] if one["is_gold"]} for question in asked
    ]
    exact = [set(row) for row in one_by_one(build(vectors, "Flat", "")[0], queries).tolist()]
    rows: list[dict[str, Any]] = []
    arms: dict[str, Callable[[], Any]] = {}
    for factory, search in INDEXES:
        index, seconds = build(vectors, factory, search)
        name = f"{factory} {search}".strip()
        arms[name] = partial(one_by_one, index, queries)
        near = arms[name]()
        rows.append(
            {
                "index": name,
                "recall": found_of(exact, near),
                "gold": found_of(gold, near),
                "bytes": round(len(faiss.serialize_index(index)) / len(vectors)),
                "build_seconds": round(seconds, 2),
            }
        )
    for row, times in zip(rows, interleave(arms, chosen.runs).values(), strict=True):
        row["ms"] = round(statistics.median(times) / len(queries), 3)
        row["ms_range"] = [round(end(times) / len(queries), 3) for end in (min, max)]
    for dim in FLOAT8:
        near = float8(vectors, queries, dim)
        rows.append(
            {
                "index": f"PCA{dim}, float8",
                "recall": found_of(exact, near),
                "gold": found_of(gold, near),
                "bytes": dim,
            }
        )
    report({"vectors": len(vectors), "queries": len(queries), "rows": rows})


if __name__ == "__main__":
    main()
