"""The weight of exit-mini's log-odds, and its tau, by training data that neither network has seen.

Questions of SQuAD's held-out articles, each with its passage and the nine nearest others by BM25
that hold no answer; and of FairytaleQA, each with its section of the tale and the eight nearest of
the others. For each weight: the share of the questions whose answer is kept at shares of the
words, after ranking; then, for the shipped weight, what is kept from several tau up. From the
repository's root:

    OMP_NUM_THREADS=1 python benchmarks/exit_mini_weight.py
"""

import json
import random
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common import DATA, parser, report

from ragpack.bench.cutting import cut, words_kept
from ragpack.bench.measures import answer_kept
from ragpack.bench.questions import Question
from ragpack.compressors.exit_mini import ExitMini
from ragpack.models.sentence_judge import LOG_ODDS
from ragpack.ranking import ranked
from ragpack.sentences import sentence_spans
from ragpack.train.exit_mini_data import HELD_OUT, load_squad
from ragpack.train.lexical import LexicalIndex
from ragpack.types import Passage, Segment, Span, TextArtifact

TRAIN = DATA / "train"
WEIGHTS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08)
RATES = (0.116, 0.286)
TAUS = (0.75, 0.8, 0.85, 0.9, 0.95)

Scores = list[list[float]]


class Judged(NamedTuple):
    """A question with what both networks say of every sentence."""

    question: Question
    spans: list[tuple[Span, ...]]
    cosines: Scores
    log_odds: Scores

    def ranked(self, weight: float) -> list[TextArtifact]:
        """Every sentence with its score after ranking."""
        pairs = zip(self.cosines, self.log_odds, strict=True)
        joined = [[one + weight * odds for one, odds in zip(*row, strict=True)] for row in pairs]
        scores = ranked(self.question.text, self.question.passages, self.spans, joined)
        return [TextArtifact(own, tuple(row)) for own, row in zip(self.spans, scores, strict=True)]


def held_out_articles(count: int, seed: int) -> Iterator[Question]:
    """Questions of articles that are in no training."""
    squad = load_squad(TRAIN)
    pool = list({group.samples[0].text: group.samples[0] for group, _ in squad}.values())
    index = LexicalIndex(sample.text for sample in pool)
    own = [pair for pair in squad if pair[0].article in HELD_OUT]
    for group, answers in random.Random(seed).sample(own, count):
        held = re.compile("|".join(map(re.escape, answers)), re.IGNORECASE)
        near = (pool[row] for row in index.nearest(group.question, 40))
        misses = [sample for sample in near if not held.search(sample.text)][:9]
        texts = [(one.title, " ".join(one.sentences)) for one in (group.samples[0], *misses)]
        yield _question(group.question, answers, texts)


def tales(count: int, seed: int) -> Iterator[Question]:
    """Questions whose answer stands in a section of their tale; five sections in all or more."""
    path = TRAIN / "fairytaleqa.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    sections: dict[str, dict[str, None]] = defaultdict(dict)
    for record in records:
        sections[record["title"]].update(dict.fromkeys(record["sections"]))
    random.Random(seed).shuffle(records)
    found = (_tale(record, list(sections[record["title"]])) for record in records)
    kept = (question for question in found if question is not None)
    return (question for question, _ in zip(kept, range(count), strict=False))


def _tale(record: dict[str, Any], sections: Sequence[str]) -> Question | None:
    answers = [answer.strip().rstrip(".").lower() for answer in record["answers"]]
    own = [
        text for text in record["sections"] if any(one and one in text.lower() for one in answers)
    ]
    others = [text for text in sections if text not in record["sections"]]
    if not own or len(others) < 4:
        return None
    near = [others[row] for row in LexicalIndex(others).nearest(record["question"], 8)]
    title = record["title"].replace("-", " ")
    return _question(record["question"], answers, [(title, text) for text in (*own, *near)])


def _question(text: str, answers: Sequence[str], texts: Sequence[tuple[str, str]]) -> Question:
    passages = tuple(
        Passage(str(place), body, title=title) for place, (title, body) in enumerate(texts)
    )
    gold = (True, *[False] * (len(texts) - 1))
    return Question(text, tuple(answers), passages, gold, ((),) * len(texts))


def judged(question: Question, method: ExitMini) -> Judged:
    """What both networks say."""
    spans = [sentence_spans(passage.text) for passage in question.passages]
    titles = [passage.title for passage in question.passages]
    texts = [
        [passage.text[start:end] for start, end in own]
        for passage, own in zip(question.passages, spans, strict=True)
    ]
    asked = question.text, titles, texts
    return Judged(question, spans, method.judge.cosines(*asked), method.judge.log_odds(*asked))


def kept(rows: Sequence[Judged], weight: float) -> list[float]:
    """The share of the answers kept at each of the shares of the words."""
    found = [(row.question, row.ranked(weight)) for row in rows]
    return [
        statistics.mean(
            answer_kept(question, cut(question.passages, own, rate))[0] for question, own in found
        )
        for rate in RATES
    ]


def above(rows: Sequence[Judged], tau: float) -> list[float]:
    """The share of the answers, and of the words, that are kept from ``tau`` up."""
    segments = [
        [
            Segment(passage, tuple(_above(one, tau)))
            for passage, one in zip(row.question.passages, row.ranked(LOG_ODDS), strict=True)
        ]
        for row in rows
    ]
    pairs = zip(rows, segments, strict=True)
    answers = statistics.mean(answer_kept(row.question, own)[0] for row, own in pairs)
    words = [words_kept(own) for own in segments]
    return [answers, sum(part for part, _ in words) / sum(whole for _, whole in words)]


def _above(artifact: TextArtifact, tau: float) -> Iterator[Span]:
    pairs = zip(artifact.spans, artifact.scores, strict=True)
    return (span for span, score in pairs if score >= tau)


def main() -> None:
    """Score the questions once and print what each weight and each tau keeps."""
    options = parser(__doc__)
    options.add_argument("--questions", type=int, default=100, help="of each of the two sorts")
    chosen = options.parse_args()
    if not TRAIN.exists():
        sys.exit(f"skipped: there are no training data at {Path('..', 'shared', 'data')}")
    method = ExitMini()
    sources = {"held-out articles": held_out_articles, "tales": tales}
    rows = {
        name: [judged(question, method) for question in draw(chosen.questions, chosen.seed)]
        for name, draw in sources.items()
    }
    report(
        {
            "questions": {name: len(own) for name, own in rows.items()},
            "rates": RATES,
            "answers kept, by weight": {
                name: {weight: _rounded(kept(own, weight)) for weight in WEIGHTS}
                for name, own in rows.items()
            },
            "answers and words kept, by tau": {
                name: {tau: _rounded(above(own, tau)) for tau in TAUS} for name, own in rows.items()
            },
            "seed": chosen.seed,
        }
    )


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]


if __name__ == "__main__":
    main()
