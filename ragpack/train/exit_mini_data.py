"""Training groups for exit-mini: a question, passages, and which of their sentences answer it.

From the folder of public data sets (JSON Lines): SQuAD 1.1 with its unanswerable sister, and the
sentence-question pairs of Du et al. (2017), whose neighbouring sentences are made into passages.
"""

import json
import random
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ragpack.digest import digest_file
from ragpack.errors import ConfigError
from ragpack.sentences import sentence_spans
from ragpack.train.lexical import LexicalIndex, words

__all__ = [
    "HELD_OUT",
    "IGNORE",
    "Group",
    "Sample",
    "excluded_texts",
    "load_groups",
    "load_squad",
    "source_digests",
    "training_groups",
]

IGNORE = -1
"""Label of a sentence that holds the answer's words but may not answer."""

HELD_OUT = frozenset(
    {"1973 oil crisis", "Imperialism", "Geology", "Doctor Who", "Super Bowl 50", "Normans"}
)
"""Articles of SQuAD that training never sees: for choosing among checkpoints."""

_SQUAD = "squad_v1.1_dev.jsonl"
_REFUSED = "squad_v2.0_dev_unanswerable.jsonl"
_PAIRED = "nqg_sentence_question.jsonl"
_BRACKETS = {"-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]", "``": '"', "''": '"'}
_NEIGHBOURS = 4
_TELLING = 4
"""Words of a text that is told apart from others by them."""

_PAIRS, _UNANSWERABLE = 6000, 1700
"""How many are drawn of the two lesser sources; SQuAD 1.1 is taken whole."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A passage with a label for each sentence: 1 answers, 0 does not, ``IGNORE``."""

    title: str
    sentences: tuple[str, ...]
    labels: tuple[int, ...]

    @property
    def text(self) -> str:
        """Title and sentences as one string."""
        return " ".join((self.title, *self.sentences))

    def irrelevant(self) -> "Sample":
        """The same passage under a question that it does not answer."""
        return replace(self, labels=(0,) * len(self.sentences))


@dataclass(frozen=True, slots=True)
class Group:
    """A question with the passage it was asked of and, where one was found, a near miss.

    ``article`` is empty for pairs that name none.
    """

    question: str
    article: str
    samples: tuple[Sample, ...]

    def keys(self) -> Iterator[str]:
        """The words of the question and of every sentence, see :func:`excluded_texts`."""
        yield _word_key(self.question)
        yield from (_word_key(text) for sample in self.samples for text in sample.sentences)


def source_digests(folder: Path) -> dict[str, str]:
    """Digests of the files that :func:`load_groups` reads, by name.

    Raises:
        ConfigError: one is not there.
    """
    names = (_SQUAD, _REFUSED, _PAIRED)
    if lacking := [name for name in names if not (folder / name).is_file()]:
        raise ConfigError(f"{folder} holds no {', no '.join(lacking)}: training needs them")
    return {name: digest_file(folder / name) for name in names}


def excluded_texts(path: Path | None) -> frozenset[str]:
    """The words of every question, and of every sentence of a passage, in an evaluation file.

    Texts of up to three words ("citation needed") are left out: they say nothing of their source.

    Args:
        path: JSON Lines with ``question`` and ``passages``, each with a ``text``; None for none.

    Raises:
        ConfigError: it is not there, or holds other records.
    """
    if path is None:
        return frozenset()
    try:
        keys = {_word_key(text) for row in _records(path) for text in _evaluated(row)}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no file of questions with their passages: {error}") from error
    return frozenset(key for key in keys if key.count(" ") >= _TELLING - 1)


def training_groups(folder: Path, seed: int, excluded: frozenset[str] = frozenset()) -> list[Group]:
    """The groups of one epoch without the held-out articles and without ``excluded`` texts."""
    return [
        group
        for group in load_groups(folder, seed)
        if group.article not in HELD_OUT and excluded.isdisjoint(group.keys())
    ]


def load_groups(folder: Path, seed: int) -> list[Group]:
    """The groups of one epoch, shuffled; negatives are drawn from the passages nearest by BM25.

    Args:
        folder: holds ``squad_v1.1_dev.jsonl``, ``squad_v2.0_dev_unanswerable.jsonl`` and
            ``nqg_sentence_question.jsonl``.
        seed: of the shuffling and of the draws.
    """
    draw = random.Random(seed)  # noqa: S311 - not for secrets
    squad = load_squad(folder)
    hidden = {
        _word_key(sentence)
        for group, _ in squad
        if group.article in HELD_OUT
        for sentence in group.samples[0].sentences
    }
    pairs = list(_pairs(_records(folder / _PAIRED), hidden))
    groups = _with_negatives(squad, draw)
    drawn = draw.sample(_with_negatives(pairs, draw), min(_PAIRS, len(pairs)))
    refused = _unanswerable(_records(folder / _REFUSED))
    groups += drawn + draw.sample(refused, min(_UNANSWERABLE, len(refused)))
    draw.shuffle(groups)
    return groups


def load_squad(folder: Path) -> list[tuple[Group, tuple[str, ...]]]:
    """SQuAD 1.1 with the answers of each question; the held-out articles are among them."""
    return list(_squad(_records(folder / _SQUAD)))


def _word_key(sentence: str) -> str:
    return " ".join(words(sentence))


def _evaluated(record: dict[str, Any]) -> Iterator[str]:
    yield record["question"]
    for passage in record["passages"]:
        yield from _split(passage["text"])


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _squad(records: Iterable[dict[str, Any]]) -> Iterator[tuple[Group, tuple[str, ...]]]:
    for record in records:
        sentences = _split(record["context"])
        labels = _answer_labels(record["question"], sentences, record["answers"])
        if 1 in labels:
            sample = Sample(record["title"], sentences, labels)
            group = Group(record["question"], record["title"], (sample,))
            yield group, tuple(record["answers"])


def _unanswerable(records: Iterable[dict[str, Any]]) -> list[Group]:
    found = []
    for record in records:
        sentences = _split(record["context"])
        sample = Sample(record["title"], sentences, (0,) * len(sentences))
        found.append(Group(record["question"], record["title"], (sample,)))
    return found


def _pairs(
    records: Iterable[dict[str, Any]], hidden: Container[str]
) -> Iterator[tuple[Group, tuple[str, ...]]]:
    """Runs of neighbouring sentences as passages; the pairs stand in the order of their texts."""
    asked: dict[str, list[str]] = {}
    for record in records:
        asked.setdefault(_plain(record["sentence"]), []).append(_plain(record["question"]))
    order = [sentence for sentence in asked if _word_key(sentence) not in hidden]
    for start in range(0, len(order), _NEIGHBOURS):
        sentences = tuple(order[start : start + _NEIGHBOURS])
        for number, sentence in enumerate(sentences):
            labels = tuple(int(other == number) for other in range(len(sentences)))
            for question in asked[sentence]:
                yield Group(question, "", (Sample("", sentences, labels),)), (sentence,)


def _plain(tokenised: str) -> str:
    """Penn Treebank brackets and quotes as ordinary ones."""
    return " ".join(_BRACKETS.get(word, word) for word in tokenised.split())


def _split(text: str) -> tuple[str, ...]:
    return tuple(text[start:end] for start, end in sentence_spans(text))


def _answer_labels(
    question: str, sentences: Sequence[str], answers: Sequence[str]
) -> tuple[int, ...]:
    """1 for the sentence that holds an answer and shares most words with the question."""
    holds = [any(answer in sentence for answer in answers) for sentence in sentences]
    asked = set(words(question))
    overlap = [len(asked & set(words(sentence))) for sentence in sentences]
    best = max((n for n, held in enumerate(holds) if held), key=overlap.__getitem__, default=None)
    return tuple(1 if n == best else IGNORE if held else 0 for n, held in enumerate(holds))


def _with_negatives(
    found: Sequence[tuple[Group, tuple[str, ...]]], draw: random.Random
) -> list[Group]:
    """Each group with one of its nearest passages that holds none of its answers."""
    pool = list({group.samples[0].text: group.samples[0] for group, _ in found}.values())
    index = LexicalIndex(sample.text for sample in pool)
    return [_with_negative(group, answers, index, pool, draw) for group, answers in found]


def _with_negative(
    group: Group,
    answers: Sequence[str],
    index: LexicalIndex,
    pool: Sequence[Sample],
    draw: random.Random,
    nearest: int = 8,
) -> Group:
    near = [pool[row] for row in index.nearest(group.question, nearest)]
    held = re.compile("|".join(map(re.escape, answers)), re.IGNORECASE)
    misses = [sample for sample in near if not held.search(sample.text)]
    if not misses:
        return group
    return replace(group, samples=(*group.samples, draw.choice(misses).irrelevant()))
