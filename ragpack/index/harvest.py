"""What comes back from a cluster, and how it gets into the account of the job."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ragpack.corpus import BadRecord, Item
from ragpack.index.account import Account, IndexSummary, Progress
from ragpack.models.dense import DenseEncoder

__all__ = ["Harvest"]

_VECTORS = DenseEncoder.name


class Harvest:
    """What came back: an account, and the reasons of failures by passage."""

    def __init__(self, progress: Progress | None) -> None:
        self._account = Account(progress, None)
        self._account.turn_to("reading")
        self._failed: dict[str, list[str]] = {}

    def add(self, results: Iterable[Mapping[str, Any]]) -> None:
        """Count the results of a batch, rows as :mod:`ragpack.index.worker` describes them."""
        summary = self._account.summary
        summary.stage = "computing"
        characters = 0
        for row in results:
            methods = row["methods"].split(",")
            characters += row["characters"]
            summary.bytes += row["bytes"]
            summary.offset = max(summary.offset, row["offset"])
            if row["status"] == "failed":
                self._fail(row["passage"], methods[0], row["reason"])
            else:
                (summary.hits if row["status"] == "hit" else summary.computed).update(methods)
        summary.passages = summary.hits[_VECTORS] + summary.computed[_VECTORS]
        self._account.tick(characters)

    def _fail(self, passage: str, method: str, reason: str) -> None:
        """Keep the failure of a method; a vector is tried again when the index is built."""
        if method != _VECTORS:
            self._failed.setdefault(passage, []).append(f"{method}: {reason}")

    def failures_among(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, with a bad record behind each one of which something failed."""
        for item in items:
            yield item
            if self._failed and not isinstance(item, BadRecord):
                for reason in self._failed.get(item.passage.digest, ()):
                    yield item.failed(reason)

    def add_to(self, summary: IndexSummary) -> None:
        """Put the cluster's work into the account of the job that found it in the store."""
        mine = self._account.summary
        summary.hits = mine.hits
        summary.computed += mine.computed
        summary.bytes += mine.bytes
        summary.characters += mine.characters
        summary.seconds += mine.seconds
