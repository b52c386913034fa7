"""What an indexing job did so far, and who is told."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ragpack.corpus import BadRecord, Record
from ragpack.index.fill import Filled

__all__ = ["Account", "Failed", "IndexSummary", "Progress"]

_LISTED = 100


@dataclass(slots=True)
class IndexSummary:
    """What a job did so far.

    ``computed`` and ``hits`` count artifacts by method; ``failed`` lists the first hundred of
    ``failures``. ``offset`` is in bytes of the corpus, ``characters`` counts texts computed,
    ``bytes`` what was stored. ``stage`` is what it is at, in a word: reading, embedding, a method.
    """

    passages: int = 0
    added: int = 0
    computed: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    failed: list[BadRecord] = field(default_factory=list)
    seconds: float = 0.0
    offset: int = 0
    characters: int = 0
    bytes: int = 0
    stage: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready summary."""
        return {
            "passages": self.passages,
            "added": self.added,
            "computed": dict(self.computed),
            "hits": dict(self.hits),
            "failures": self.failures,
            "failed": [
                {"source": bad.source, "line": bad.line, "reason": bad.reason}
                for bad in self.failed
            ],
            "seconds": round(self.seconds, 3),
        }


Progress = Callable[[IndexSummary], None]
"""Called with the job's account so far."""
Failed = Callable[[BadRecord], None]
"""Called with each record or passage that could not be indexed."""


@dataclass(slots=True)
class _Stretch:
    """The bytes of the corpus that a batch came from, and how far its methods are with them.

    ``passed`` counts the methods that are through, ``done`` the characters of the one at work.
    """

    start: int
    end: int
    characters: int
    methods: int
    passed: int = 0
    done: int = 0

    def pass_on(self) -> None:
        """A method is through with the batch."""
        self.passed += 1
        self.done = 0

    def offset_after(self, characters: int) -> int:
        """Where the work stands when so many more characters are done."""
        self.done = min(self.done + characters, self.characters)
        share = (self.passed + self.done / max(1, self.characters)) / self.methods
        return self.start + round((self.end - self.start) * min(1.0, share))


class Account:
    """Adds up what is done, and tells those who want to know."""

    def __init__(self, progress: Progress | None, failed: Failed | None) -> None:
        self.summary = IndexSummary()
        self._progress = progress
        self._failed = failed
        self._start = time.perf_counter()
        self._stretch: _Stretch | None = None

    def begin(self, batch: Sequence[Record], methods: int) -> None:
        """A batch begins whose texts pass through so many methods: the offset goes with them."""
        characters = sum(len(record.passage.full_text) for record in batch)
        end = batch[-1].offset if batch else self.summary.offset
        self._stretch = _Stretch(self.summary.offset, end, characters, methods)

    def turn_to(self, stage: str) -> None:
        """The job turns to something else, and says so before it does it."""
        self.summary.stage = stage
        self.tick()

    def tick(self, characters: int = 0) -> None:
        """Count texts computed, and the time."""
        self.summary.characters += characters
        if self._stretch is not None:
            self.summary.offset = self._stretch.offset_after(characters)
        self.summary.seconds = time.perf_counter() - self._start
        if self._progress is not None:
            self._progress(self.summary)

    def fail(self, bad: BadRecord) -> None:
        """Count a failure, keep the first ones, hand it on."""
        self.summary.failures += 1
        if len(self.summary.failed) < _LISTED:
            self.summary.failed.append(bad)
        if self._failed is not None:
            self._failed(bad)

    def enter(
        self, methods: Sequence[str], batch: Sequence[Record], results: Sequence[Filled]
    ) -> None:
        """Count what became of a batch under methods that share their artifacts."""
        if self._stretch is not None:
            self._stretch.pass_on()
        for record, result in zip(batch, results, strict=True):
            self.summary.bytes += result.bytes
            if result.status == "failed":
                self.fail(record.failed(f"{methods[0]}: {result.reason}"))
                continue
            counter = self.summary.hits if result.status == "hit" else self.summary.computed
            counter.update(methods)
