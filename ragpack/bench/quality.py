"""What is left of the answer after packing, method by method, at equal shares of the words."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ragpack.bench.arms import Arm, Seen
from ragpack.bench.cutting import cut, words_kept
from ragpack.bench.measures import Estimate, Share, answer_kept, estimate, support_kept
from ragpack.bench.questions import Question
from ragpack.bench.reader import read
from ragpack.protocols import Decoder
from ragpack.types import Segment

__all__ = ["GOLD_KEPT", "Measured", "Quality", "Row"]

GOLD_KEPT = 0.95
"""Share of the gold passages that must stay: where each method's threshold is set."""

Estimates = Mapping[str, Estimate | None]


@dataclass(frozen=True, slots=True)
class Row:
    """One method at one share of the words, with or without a threshold."""

    method: str
    rate: float
    min_relevance: float | None
    figures: Estimates

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; figures that were not taken are absent."""
        where = {"method": self.method, "rate": self.rate, "min_relevance": self.min_relevance}
        return where | _dicts(self.figures)


@dataclass(frozen=True, slots=True)
class Measured:
    """A method's median milliseconds a request, its rows, and what its threshold does."""

    method: str
    cold_ms: float
    warm_ms: float
    rows: tuple[Row, ...]
    min_relevance: float | None = None
    selective: Estimates = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the rows."""
        times = {"cold_ms": round(self.cold_ms, 2), "warm_ms": round(self.warm_ms, 2)}
        if self.min_relevance is None:
            return times
        return times | {"min_relevance": round(self.min_relevance, 4)} | _dicts(self.selective)


@dataclass(frozen=True, slots=True)
class _Judgement:
    """Relevance of a question's passages, and of those that are left without the gold ones."""

    gold: Sequence[bool]
    relevance: Sequence[float]
    without_gold: Sequence[float]

    def of(self, gold: bool) -> list[float]:
        """The values of the gold passages, or of the others."""
        return [value for value, own in zip(self.relevance, self.gold, strict=False) if own is gold]

    def near(self, count: int, least: float | None) -> list[int]:
        """The places, of ``count``, of passages that are let in."""
        return [i for i in range(count) if least is None or self.relevance[i] >= least]


class Quality:
    """Measures arms on the same questions.

    Args:
        questions: to measure on.
        rates: shares of the words to cut at, each above 0 and at most 1.
        decoder: reads the contexts; None to leave NLL and F1 out.
        reading: how many of the questions it reads, from the first that have an answer.

    ``advance`` is called after each question seen and each context read.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        rates: Sequence[float],
        *,
        decoder: Decoder | None = None,
        reading: int = 0,
    ) -> None:
        self._questions = questions
        self._rates = tuple(rates)
        self._decoder = decoder
        self.advance: Callable[[], None] = lambda: None
        answerable = [i for i, question in enumerate(questions) if question.answers]
        self._read = answerable[:reading] if decoder is not None else []

    def steps(self, arms: int) -> int:
        """How often ``advance`` is called for :meth:`without`, :meth:`whole` and this many arms."""
        contexts = 2 + arms * len(self._rates)
        return arms * len(self._questions) + contexts * len(self._read)

    def without(self) -> Row:
        """No passage at all."""
        return self._row("none", 0.0, None, [_empty(question) for question in self._questions])

    def whole(self) -> Row:
        """Every passage as it is."""
        full = [
            [Segment(passage, ((0, len(passage.text)),)) for passage in question.passages]
            for question in self._questions
        ]
        return self._row("whole", 1.0, None, full)

    def arm(self, arm: Arm) -> Measured:
        """Everything about one arm."""
        seen = [self._see(arm, question) for question in self._questions]
        judged = _judgements(arm, self._questions, seen)
        least = _threshold(judged)
        thresholds = (None,) if least is None else (None, least)
        return Measured(
            method=arm.name,
            cold_ms=statistics.median(one.cold_ms for one in seen),
            warm_ms=statistics.median(one.warm_ms for one in seen),
            rows=tuple(row for value in thresholds for row in self._rows(arm, seen, judged, value)),
            min_relevance=least,
            selective={} if least is None else _selective(judged, least),
        )

    def _see(self, arm: Arm, question: Question) -> Seen:
        seen = arm.see(question)
        self.advance()
        return seen

    def _rows(
        self,
        arm: Arm,
        seen: Sequence[Seen],
        judged: Sequence[_Judgement],
        least: float | None,
    ) -> Iterator[Row]:
        ranked = [
            arm.rank(question, one, judgement.near(len(question.passages), least))
            for question, one, judgement in zip(self._questions, seen, judged, strict=True)
        ]
        for rate in self._rates:
            kept = [
                cut(question.passages, own, rate)
                for question, own in zip(self._questions, ranked, strict=True)
            ]
            yield self._row(arm.name, rate, least, kept)

    def _row(
        self, method: str, rate: float, least: float | None, kept: Sequence[list[Segment]]
    ) -> Row:
        pairs = list(zip(self._questions, kept, strict=True))
        figures = {
            "words": estimate([words_kept(segments) for segments in kept]),
            "answer": estimate([answer_kept(*pair) for pair in pairs]),
            "support": estimate([support_kept(*pair) for pair in pairs]),
        }
        if least is None:
            figures |= self._reading(kept)
        return Row(method, rate, least, figures)

    def _reading(self, kept: Sequence[list[Segment]]) -> Estimates:
        """What the decoder makes of the contexts it reads."""
        if self._decoder is None:
            return {}
        losses, overlaps = list[Share](), list[Share]()
        for place in self._read:
            loss, overlap = read(self._decoder, self._questions[place], kept[place])
            losses.append((loss, 1.0))
            overlaps.append((overlap, 1.0))
            self.advance()
        return {"nll": estimate(losses), "f1": estimate(overlaps)}


def _empty(question: Question) -> list[Segment]:
    return [Segment(passage) for passage in question.passages]


def _judgements(arm: Arm, questions: Sequence[Question], seen: Sequence[Seen]) -> list[_Judgement]:
    judged = []
    for question, one in zip(questions, seen, strict=True):
        places = range(len(question.passages))
        found = arm.relevance(question, one, places)
        beside = [place for place in places if not question.gold[place]]
        without = arm.relevance(question, one, beside)
        judged.append(_Judgement(question.gold, found or [], without or []))
    return judged


def _threshold(judged: Sequence[_Judgement]) -> float | None:
    """The relevance that :data:`GOLD_KEPT` of the gold passages reach."""
    gold = [value for one in judged for value in one.of(True)]
    return float(np.quantile(gold, 1.0 - GOLD_KEPT, method="lower")) if gold else None


def _selective(judged: Sequence[_Judgement], least: float) -> Estimates:
    """What a threshold does to gold passages and others, and how often it leaves nothing."""

    def left_out(values: Sequence[float]) -> Share:
        return sum(value < least for value in values), len(values)

    def nothing(values: Sequence[float]) -> Share:
        return all(value < least for value in values), bool(values)

    return {
        "gold_left_out": estimate([left_out(one.of(True)) for one in judged]),
        "others_left_out": estimate([left_out(one.of(False)) for one in judged]),
        "empty": estimate([nothing(one.relevance) for one in judged]),
        "empty_without_gold": estimate([nothing(one.without_gold) for one in judged]),
    }


def _dicts(figures: Estimates) -> dict[str, dict[str, float]]:
    return {name: figure.to_dict() for name, figure in figures.items() if figure is not None}
