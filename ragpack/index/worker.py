"""What one process of a cluster does: it holds the models, and checks, computes and stores."""

import os
from collections.abc import Iterator, Sequence

import pyarrow as pa

from ragpack import registry
from ragpack.cache import ArtifactCache
from ragpack.index.cluster import Work
from ragpack.index.fill import Filler, fillers_of
from ragpack.index.staging import read_passages
from ragpack.models import load_encoder
from ragpack.models.dense import DenseEncoder
from ragpack.pipeline import make_compressor
from ragpack.types import Passage

__all__ = ["Worker"]

_RESULTS = pa.schema(
    [
        ("key", pa.string()),
        ("passage", pa.string()),
        ("methods", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("bytes", pa.int64()),
        ("characters", pa.int64()),
        ("offset", pa.int64()),
    ]
)


class Worker:
    """Fills the store with the artifacts of the batches it is called with.

    It stores what it has computed before it returns, so that nothing finished is lost with it, and
    what it does again after a crash it finds in the store.
    """

    def __init__(self, work: Work) -> None:
        os.environ["RAGPACK_ENCODER_DTYPE"] = work.dtype  # keys depend on it
        store = registry.open_store(work.store)
        compressors = [
            DenseEncoder(load_encoder(work.encoder)),
            *(make_compressor(method, {}) for method in work.methods),
        ]
        self._fillers = fillers_of(
            ArtifactCache(compressor, store, namespace=work.namespace, secret=work.secret)
            for compressor in compressors
        )

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Keys and what became of them, for each staged passage and each thing stored of it.

        Raises:
            CacheUnavailable: the store does not answer or is full.
        """
        passages = list(read_passages(batch))
        offsets = batch.column("offset").to_pylist()
        rows = (
            row
            for filler, methods in self._fillers.items()
            for row in _fill(filler, ",".join(methods), passages, offsets)
        )
        return pa.Table.from_pylist(list(rows), _RESULTS)


def _fill(
    filler: Filler, methods: str, passages: Sequence[Passage], offsets: Sequence[int]
) -> Iterator[dict[str, str | int]]:
    keys = filler.cache.keys(passages)
    results = filler.fill(passages)
    for key, passage, offset, result in zip(keys, passages, offsets, results, strict=True):
        yield {
            "key": str(key),
            "passage": passage.digest,
            "methods": methods,
            "status": result.status,
            "reason": result.reason,
            "bytes": result.bytes,
            "characters": len(passage.full_text) if result.status == "computed" else 0,
            "offset": offset,
        }
