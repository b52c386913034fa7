"""Questions to measure on: a JSON Lines file, one record a line.

``{question, answers: [str], passages: [{id, title, text, is_gold, sentences, support}]}``, where
``is_gold`` says that the passage is needed for the answer. ``sentences`` (whose texts, joined by
blanks, are the passage's) and ``support`` (numbers of those that are needed) may be absent.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from ragpack.corpus import passage_from
from ragpack.errors import ConfigError, InputError
from ragpack.types import Passage

__all__ = ["Question", "read_questions"]

_YES_NO = {"yes", "no"}


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its passages.

    ``answers`` are alternatives that may stand in a passage; none for a yes/no question. ``gold``
    and ``support`` go with ``passages``: whether each is needed, and the middle character of each
    labelled sentence that is.
    """

    text: str
    answers: tuple[str, ...]
    passages: tuple[Passage, ...]
    gold: tuple[bool, ...]
    support: tuple[tuple[int, ...], ...]


def read_questions(path: Path, count: int | None = None, seed: int = 0) -> list[Question]:
    """The questions of a file in an order drawn by ``seed``; the first ``count`` of them.

    Raises:
        ConfigError: ``count`` below 1.
        InputError: the file cannot be read, has no question, or a record is wrong.
    """
    if count is not None and count < 1:
        raise ConfigError(f"the number of questions must be at least 1, not {count}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read questions from {path}: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise InputError(f"{path} holds no question")
    random.Random(seed).shuffle(numbered)  # noqa: S311
    return [_parse(path, *one) for one in numbered[:count]]


def _parse(path: Path, number: int, line: str) -> Question:
    try:
        return _question(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"no field {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{path}, line {number}: not a question record: {what}") from error


def _question(record: dict[str, Any]) -> Question:
    rows = record["passages"]
    return Question(
        text=record["question"],
        answers=tuple(answer for answer in record["answers"] if answer.lower() not in _YES_NO),
        passages=tuple(passage_from(row) for row in rows),
        gold=tuple(bool(row.get("is_gold")) for row in rows),
        support=tuple(tuple(_middles(row)) for row in rows),
    )


def _middles(row: dict[str, Any]) -> Iterator[int]:
    """The middle character of each supporting sentence."""
    needed = set(row.get("support", ()))
    lengths = [len(sentence) + 1 for sentence in row.get("sentences", ())]
    for number, (start, end) in enumerate(pairwise(accumulate(lengths, initial=0))):
        if number in needed:
            yield (start + end) // 2
