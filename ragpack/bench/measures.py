"""What is measured on a question, and how sure the mean over questions is."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragpack.bench.questions import Question
from ragpack.types import Segment

__all__ = ["Estimate", "Share", "answer_kept", "estimate", "support_kept", "token_f1"]

_RESAMPLES = 1000
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)

Share = tuple[float, float]
"""A part and the whole it is of, such as words kept and words given, for one question."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval, from ``n`` questions."""

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, float]:
        """JSON-ready, rounded to four places."""
        rounded = {name: round(getattr(self, name), 4) for name in ("value", "low", "high")}
        return rounded | {"n": self.n}


def estimate(shares: Sequence[Share], seed: int = 0) -> Estimate | None:
    """Sum of parts over sum of wholes, with a bootstrap interval over questions.

    Questions whose whole is 0 do not count; None where that leaves none.
    """
    pairs = np.array([share for share in shares if share[1]], dtype=np.float64)
    if not len(pairs):
        return None
    drawn = np.random.default_rng(seed).integers(len(pairs), size=(_RESAMPLES, len(pairs)))
    parts, wholes = pairs[drawn].sum(axis=1).T
    low, high = np.percentile(parts / wholes, [2.5, 97.5])
    part, whole = pairs.sum(axis=0)
    return Estimate(float(part / whole), float(low), float(high), len(pairs))


def answer_kept(question: Question, segments: Sequence[Segment]) -> Share:
    """Whether an answer stands in the kept text, titles aside; no whole for a yes/no question."""
    text = " ".join(segment.kept_text for segment in segments).lower()
    found = any(answer.lower() in text for answer in question.answers)
    return float(found), float(bool(question.answers))


def support_kept(question: Question, segments: Sequence[Segment]) -> Share:
    """Labelled supporting sentences kept, by their middle character, out of all."""
    places = zip(question.support, segments, strict=True)
    found = sum(
        any(start <= middle < end for start, end in segment.spans)
        for middles, segment in places
        for middle in middles
    )
    return float(found), float(sum(map(len, question.support)))


def token_f1(answer: str, golds: Sequence[str]) -> float:
    """SQuAD's F1 (Rajpurkar et al., 2016): overlap of words with the nearest of ``golds``."""
    return max((_f1(_words(answer), _words(gold)) for gold in golds), default=0.0)


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    common = (Counter(found) & Counter(wanted)).total()
    return 2.0 * common / (len(found) + len(wanted))
