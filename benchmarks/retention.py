"""Answers kept against words kept: BM25 sentences and recomp-extractive on real questions.

Sentences of all passages of a question compete. Each is cut in two ways: at a number of sentences,
and at a share of the question's words (the last sentence counts if at least half of it fits).
Yes/no questions have no answer to look for and are left out of the answer column. Sentence vectors
come from the store, so a second run with ``--store`` is quick. From the repository's root:

    python benchmarks/retention.py
    python benchmarks/retention.py --questions 500 --store lmdb:///tmp/retention
"""

import json
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import bm25s
import numpy as np
from common import DATA, parser, report
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ragpack import Passage
from ragpack.cache import ArtifactCache
from ragpack.compressors.recomp_extractive import DEFAULT_TOP_N, RecompExtractive
from ragpack.models import load_encoder
from ragpack.protocols import CacheStore
from ragpack.registry import open_store
from ragpack.sentences import sentence_spans
from ragpack.types import EmbedsArtifact, TextArtifact

SENTENCES = (1, 3, 5, 8, DEFAULT_TOP_N)
SHARES = (0.023, 0.069, 0.116, 0.189, 0.286)

Scores = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Sentence:
    """A sentence; ``support`` is the number of labelled supporting facts that it covers."""

    title: str
    text: str
    words: int
    support: int


@dataclass(frozen=True)
class Question:
    """A question with the sentences of all its passages, in document order."""

    text: str
    answers: list[str]
    passages: list[Passage]
    sentences: list[Sentence]


Scorer = Callable[[Question], Scores]


def read_questions(count: int, seed: int) -> list[Question]:
    """``count`` questions of the development set, drawn without repetition."""
    with (DATA / "qa_dev.jsonl").open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    chosen = random.Random(seed).sample(records, min(count, len(records)))
    return [_question(record) for record in chosen]


def _question(record: dict[str, Any]) -> Question:
    passages = [Passage(p["id"], p["text"], p["title"]) for p in record["passages"]]
    sentences = [
        Sentence(
            passage.title,
            passage.text[start:end],
            len(passage.text[start:end].split()),
            sum(start <= middle < end for middle in _support_middles(raw)),
        )
        for passage, raw in zip(passages, record["passages"], strict=True)
        for start, end in sentence_spans(passage.text)
    ]
    answers = [answer for answer in record["answers"] if answer.lower() not in ("yes", "no")]
    return Question(record["question"], answers, passages, sentences)


def _support_middles(raw: dict[str, Any]) -> Iterator[int]:
    """The middle character of each labelled supporting sentence of a passage."""
    lengths = [len(sentence) + 1 for sentence in raw.get("sentences", ())]
    for number, (start, end) in enumerate(pairwise(accumulate(lengths, initial=0))):
        if number in raw["support"]:
            yield (start + end) // 2


def bm25(question: Question) -> Scores:
    """BM25 of title and sentence, over the question's own sentences."""
    texts = [f"{sentence.title} {sentence.text}" for sentence in question.sentences]
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords=None, show_progress=False), show_progress=False)
    (tokens,) = bm25s.tokenize(question.text, stopwords=None, return_ids=False, show_progress=False)
    scores: Scores = index.get_scores(tokens)
    return scores


def recomp(method: RecompExtractive, store: CacheStore) -> Scorer:
    """The method's own scores, its vectors kept in ``store``."""
    cache = ArtifactCache(method, store, namespace="retention")

    def score(question: Question) -> Scores:
        looked = cache.fetch(question.passages, None)
        vectors = [look.artifact for look in looked if isinstance(look.artifact, EmbedsArtifact)]
        ranked = method.select(question.text, question.passages, vectors, budget=1)
        return np.array([s for one in ranked if isinstance(one, TextArtifact) for s in one.scores])

    return score


def top(scores: Scores, count: int) -> Mask:
    """The ``count`` best sentences."""
    kept = np.zeros(len(scores), dtype=np.bool_)
    kept[np.argsort(-scores, kind="stable")[:count]] = True
    return kept


def within(question: Question, scores: Scores, share: float) -> Mask:
    """The best sentences that make up ``share`` of the words."""
    words = np.array([sentence.words for sentence in question.sentences])
    order = np.argsort(-scores, kind="stable")
    middles = words[order].cumsum() - words[order] / 2
    kept = np.zeros(len(scores), dtype=np.bool_)
    kept[order[middles <= share * words.sum()]] = True
    return kept


def measure(questions: Sequence[Question], masks: Sequence[Mask]) -> dict[str, float]:
    """Words, answers and supporting facts kept, as shares."""
    words = all_words = answered = asked = found = support = 0
    for question, mask in zip(questions, masks, strict=True):
        kept = [sentence for sentence, keep in zip(question.sentences, mask, strict=True) if keep]
        words += sum(sentence.words for sentence in kept)
        all_words += sum(sentence.words for sentence in question.sentences)
        found += sum(sentence.support for sentence in kept)
        support += sum(sentence.support for sentence in question.sentences)
        text = " ".join(sentence.text for sentence in kept).lower()
        asked += bool(question.answers)
        answered += any(answer.lower() in text for answer in question.answers)
    return {
        "words": round(words / all_words, 4),
        "answer": round(answered / asked, 4),
        "support": round(found / max(1, support), 4),
    }


def rows(name: str, questions: Sequence[Question], score: Scorer) -> Iterator[dict[str, Any]]:
    """One row for each cut of one method."""
    scores = [score(question) for question in questions]
    pairs = list(zip(questions, scores, strict=True))
    for count in SENTENCES:
        masks = [top(values, count) for _, values in pairs]
        yield {"method": name, "cut": f"{count} sentences"} | measure(questions, masks)
    for share in SHARES:
        masks = [within(question, values, share) for question, values in pairs]
        yield {"method": name, "cut": f"{share:.1%} of words"} | measure(questions, masks)


def show(table_rows: Sequence[dict[str, Any]]) -> None:
    """The rows as a table on stderr."""
    table = Table("method", "cut", "words kept", "answer kept", "support kept")
    for row in table_rows:
        figures = (f"{row[key]:.1%}" for key in ("words", "answer", "support"))
        table.add_row(row["method"], row["cut"], *figures)
    Console(stderr=True).print(table)


def main() -> None:
    """Measure every method on the same questions."""
    options = parser(__doc__)
    options.add_argument("--questions", type=int, default=150)
    options.add_argument("--store", help="store URL; an embedded store in a temporary folder")
    chosen = options.parse_args()
    questions = read_questions(chosen.questions, chosen.seed)
    encoder = load_encoder("all-minilm-l6-v2")
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(chosen.store or f"lmdb://{folder}")
        arms: dict[str, Scorer] = {
            "bm25": bm25,
            "recomp-extractive": recomp(RecompExtractive(encoder), store),
            "the same, title=False": recomp(RecompExtractive(encoder, title=False), store),
        }
        found = [row for name, score in arms.items() for row in rows(name, questions, score)]
        store.close()
    show(found)
    report({"questions": len(questions), "seed": chosen.seed, "rows": found})


if __name__ == "__main__":
    main()
