"""Fills a vector index and the store: every passage's vector and artifacts computed once.

What the store already has is not computed again, so a job that was stopped goes on where it was
when it is simply started again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ragpack.cache import ArtifactCache
from ragpack.corpus import BadRecord, Record
from ragpack.errors import CacheUnavailable
from ragpack.index.account import Account, Failed, IndexSummary, Progress
from ragpack.index.ahead import read_ahead
from ragpack.index.fill import Filler, fillers_of
from ragpack.reader import Lookup
from ragpack.types import EmbedsArtifact, Passage

__all__ = ["Indexer", "VectorIndex"]

_BATCH = 512
_DIGEST_BYTES = 8  # in memory for every id, to see whether it comes again with another text

Met = dict[str, tuple[bytes, int, str]]


class VectorIndex(Protocol):
    """What the job needs of a retriever that searches by vector."""

    def unseen(self, passages: Sequence[Passage]) -> list[int]:
        """Positions of the texts that it has no vector of, each once."""
        ...

    def add(self, passages: Sequence[Passage], vectors: NDArray[np.float32] | None = None) -> int:
        """Add passages; returns how many texts were new.

        Only the rows of unseen texts are read of ``vectors`` [n, d].
        """
        ...


class Indexer:
    """Fills a vector index and the store from corpus records.

    A job on one machine, a service's upload and the last part of a cluster's job all use it.

    Args:
        index: takes the passages and their vectors.
        vectors: the cache of the encoder whose vectors the index holds.
        caches: one cache for each method to precompute; two that store the same share the work.
        batch: passages held in memory at once.
    """

    def __init__(
        self,
        index: VectorIndex,
        vectors: ArtifactCache,
        caches: Sequence[ArtifactCache] = (),
        *,
        batch: int = _BATCH,
    ) -> None:
        self._index = index
        self._vectors = vectors
        self._caches = caches
        self._batch = batch

    def run(
        self,
        records: Iterable[Record | BadRecord],
        progress: Progress | None = None,
        failed: Failed | None = None,
    ) -> IndexSummary:
        """Index every usable record; bad ones are counted and handed to ``failed``.

        ``progress`` is called after every few seconds of work; what it is told is in the store.

        Raises:
            CacheUnavailable: the store cannot be written; start again to go on from there.
        """
        account = Account(progress, failed)
        account.turn_to("reading")
        met: Met = {}
        with ExitStack() as stack:
            fillers = fillers_of([self._vectors, *self._caches])
            for filler in fillers:
                stack.callback(filler.close)
            for items in read_ahead(_batches(records, self._batch)):
                batch = list(_usable(items, met, account))
                account.begin(batch, len(fillers))
                self._one(fillers, batch, account)
                account.tick()
        return account.summary

    def _one(
        self, fillers: Mapping[Filler, list[str]], batch: Sequence[Record], account: Account
    ) -> None:
        """A batch; what has no vector is not in the index, and needs no other artifact."""
        for position, (filler, methods) in enumerate(fillers.items()):
            account.turn_to(", ".join(methods) if position else "embedding")
            results = filler.fill([record.passage for record in batch], account.tick)
            account.enter(methods, batch, results)
            if position == 0:
                pairs = zip(batch, results, strict=True)
                batch = [record for record, result in pairs if result.status != "failed"]
        passages = [record.passage for record in batch]
        account.summary.added += self._index.add(passages, self._read(passages))
        account.summary.passages += len(passages)

    def _read(self, passages: Sequence[Passage]) -> NDArray[np.float32] | None:
        """Vectors [n, d] from the store, of the texts that the index lacks; None if of none."""
        new = self._index.unseen(passages)
        found = self._vectors.fetch([passages[position] for position in new], None)
        if not found:
            return None
        rows = np.stack([_vector(look) for look in found])
        vectors = np.zeros((len(passages), rows.shape[1]), np.float32)
        vectors[new] = rows
        return vectors


def _batches(items: Iterable[Record | BadRecord], size: int) -> Iterator[list[Record | BadRecord]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _usable(items: Iterable[Record | BadRecord], met: Met, account: Account) -> Iterator[Record]:
    """Records that can be indexed; an id that comes again with another text fails."""
    for item in items:
        if isinstance(item, BadRecord):
            account.fail(item)
            continue
        own = bytes.fromhex(item.passage.digest)[:_DIGEST_BYTES]
        digest, line, source = met.setdefault(item.passage.id, (own, item.line, item.source))
        if digest == own:
            yield item
        else:
            first = BadRecord(line, "", source).where
            reason = f"id {item.passage.id!r} was used in {first} for another text"
            account.fail(item.failed(reason))


def _vector(look: Lookup) -> NDArray[np.float32]:
    """The only row of a stored vector."""
    if not isinstance(look.artifact, EmbedsArtifact):
        raise CacheUnavailable(f"a vector that was stored cannot be read again: {look.error}")
    vector: NDArray[np.float32] = look.artifact.vectors[0]
    return vector
