"""What an indexing job would take: counted over the whole corpus, measured on a sample of it."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from inspect import signature
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from ragpack import config
from ragpack.codec import encode_frame
from ragpack.corpus import BadRecord
from ragpack.index.job import IndexJob
from ragpack.keys import make_keys
from ragpack.pipeline import make_compressor
from ragpack.protocols import Compressor
from ragpack.text import utf8
from ragpack.types import Passage

__all__ = ["Estimate", "MethodEstimate", "estimate", "redis_memory"]

_ENTRY_BYTES = 220
_ROUNDING = 1.06
_CODECS = ("bf16", "i8")
_CODEC_SAMPLE = 4
_PAGE = 256
_BATCH = 8
_MOST_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class MethodEstimate:
    """What one method would store, in one codec.

    ``seconds`` is the time to compute everything, by ``sampled`` passages; None for a codec that
    was weighed beside the one that would be used.
    """

    method: str
    codec: str
    sampled: int
    seconds: float | None
    store_bytes: int
    redis_bytes: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job would take.

    ``passages``, ``tokens`` (the encoder's) and ``text_bytes`` (UTF-8, with titles) are those of
    different texts: what comes twice is stored once.
    """

    records: int
    failures: int
    passages: int
    tokens: int
    text_bytes: int
    methods: tuple[MethodEstimate, ...]

    def to_dict(self, gb_price: float) -> dict[str, Any]:
        """A JSON-ready summary; Redis at ``gb_price`` dollars per GB and month."""
        made = asdict(self) | {"dollars_per_gb_month": gb_price}
        for row in made["methods"]:
            row["redis_dollars_per_month"] = row["redis_bytes"] / 1e9 * gb_price
        return made


class _Weighed(NamedTuple):
    """A passage of the sample and its tokens."""

    passage: Passage
    tokens: int


def estimate(job: IndexJob, *, sample: int = 64, seed: int = 0) -> Estimate:
    """Read the corpus and measure each method on a random sample; nothing is written.

    A method is measured for about 30 seconds at most, then on fewer passages.

    Args:
        job: the job, which is not run.
        sample: how many passages to measure.
        seed: of their choice.
    """
    survey = _Survey(job, sample, seed)
    methods = job.compressors if survey.sample else []
    rows = tuple(row for compressor in methods for row in _rows(compressor, survey))
    return Estimate(
        survey.records, survey.failures, survey.passages, survey.tokens, survey.text_bytes, rows
    )


def redis_memory(entries: int, value_bytes: float) -> int:
    """Bytes that Redis 7 takes for the entries: as measured, 220 each and 6 % for rounding up."""
    return round(value_bytes * _ROUNDING + entries * _ENTRY_BYTES)


class _Survey:
    """Counts of a corpus, and a uniform sample of its passages."""

    def __init__(self, job: IndexJob, size: int, seed: int) -> None:
        self.records = self.failures = self.passages = self.tokens = self.text_bytes = 0
        self.sample: list[_Weighed] = []
        dice = random.Random(seed)  # noqa: S311  (chooses a sample)
        unique = self._unique(job)
        while page := list(islice(unique, _PAGE)):
            texts = [passage.full_text for passage in page]
            for passage, tokens in zip(page, job.counter.count(texts), strict=True):
                self._add(_Weighed(passage, tokens), size, dice)

    def _unique(self, job: IndexJob) -> Iterator[Passage]:
        seen: set[str] = set()
        for item in job.passages():
            self.records += 1
            if isinstance(item, BadRecord):
                self.failures += 1
            elif (digest := item.passage.digest) not in seen:
                seen.add(digest)
                yield item.passage

    def _add(self, weighed: _Weighed, size: int, dice: random.Random) -> None:
        """Count a passage, and keep it in the sample with equal chance for all (a reservoir)."""
        self.passages += 1
        self.tokens += weighed.tokens
        self.text_bytes += len(utf8(weighed.passage.full_text))
        if len(self.sample) < size:
            self.sample.append(weighed)
        elif (place := dice.randrange(self.passages)) < size:
            self.sample[place] = weighed


def _rows(compressor: Compressor, survey: _Survey) -> Iterator[MethodEstimate]:
    """The method as it would run, then the other codecs it could store in."""
    sizes, seconds = _measure(compressor, [weighed.passage for weighed in survey.sample])
    yield _row(compressor, survey, sizes, seconds)
    if "dtype" not in signature(type(compressor)).parameters:
        return
    for codec in _CODECS:
        if codec != compressor.fingerprint.dtype:
            other = make_compressor(compressor.name, {"dtype": codec})
            few = [weighed.passage for weighed in survey.sample[:_CODEC_SAMPLE]]
            yield _row(other, survey, _measure(other, few)[0], None)


def _measure(compressor: Compressor, passages: Sequence[Passage]) -> tuple[list[int], float]:
    """Frame bytes of each passage measured, and the seconds that computing them took."""
    keys = make_keys("dry run", compressor.kind, compressor.fingerprint, passages)
    compressor.compress(passages[:1], None)  # loads models, warms up
    sizes: list[int] = []
    start = time.perf_counter()
    while len(sizes) < len(passages) and time.perf_counter() - start < _MOST_SECONDS:
        batch = passages[len(sizes) :][: max(_BATCH, len(sizes))]
        made = zip(keys[len(sizes) :], compressor.compress(batch, None), strict=False)
        sizes += [len(encode_frame(key, artifact, config.secret())) for key, artifact in made]
    return sizes, time.perf_counter() - start


def _row(
    compressor: Compressor, survey: _Survey, sizes: Sequence[int], seconds: float | None
) -> MethodEstimate:
    tokens = [weighed.tokens for weighed in survey.sample[: len(sizes)]]
    total = _total_bytes(tokens, sizes, survey)
    return MethodEstimate(
        method=compressor.name,
        codec=compressor.fingerprint.dtype,
        sampled=len(sizes),
        seconds=None if seconds is None else seconds * survey.tokens / max(1, sum(tokens)),
        store_bytes=round(total),
        redis_bytes=redis_memory(survey.passages, total),
    )


def _total_bytes(tokens: Sequence[int], sizes: Sequence[int], survey: _Survey) -> float:
    """Sizes grow with tokens along a line, flat for a single vector; summed over the corpus."""
    if len(set(tokens)) < 2:
        return survey.passages * float(np.mean(sizes))
    slope, base = np.polyfit(tokens, sizes, 1)
    return float(base * survey.passages + slope * survey.tokens)
