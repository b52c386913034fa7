"""Training texts for REFRAG: questions with their passages, stories, articles, Python source."""

import json
import random
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragpack.digest import digest_file
from ragpack.errors import ConfigError
from ragpack.train.exit_mini_data import HELD_OUT

__all__ = [
    "HELD_OUT_PACKAGES",
    "Asked",
    "Texts",
    "digests",
    "load_texts",
    "python_source",
    "questions",
]

HELD_OUT_PACKAGES = frozenset({"asyncio", "email", "http", "json", "unittest"})
"""Packages of the standard library that training never sees."""

_SHORTEST = 800
"""Characters below which a text is too short to be continued."""
_MODULES = 300
_FILES = _SQUAD, _STORIES, _ARTICLES = (
    "squad_v1.1_dev.jsonl",
    "fairytaleqa.jsonl",
    "wikitext2_valid.txt",
)
_COUNTED, _BEGINNING = 1000, 2000


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a passage, and where in the passage its answer stands."""

    context: str
    question: str
    answer: str
    start: int


@dataclass(frozen=True, slots=True)
class Texts:
    """Everything to train on."""

    questions: Sequence[Asked]
    prose: Sequence[str]
    source: Sequence[str]

    def text(self, draw: random.Random) -> str:
        """One text to repeat or to go on with; a quarter of them are Python."""
        return draw.choice(self.source if draw.random() < 0.25 else self.prose)

    def some(self, seed: int) -> list[str]:
        """Beginnings of some texts, to count tokens in."""
        draw = random.Random(seed)  # noqa: S311 - not for secrets
        return [self.text(draw)[:_BEGINNING] for _ in range(_COUNTED)]


def digests(folder: Path) -> dict[str, str]:
    """Digests of the files that :func:`load_texts` reads, by name.

    Raises:
        ConfigError: one is not there.
    """
    if lacking := [name for name in _FILES if not (folder / name).is_file()]:
        raise ConfigError(f"{folder} holds no {', no '.join(lacking)}: training needs them")
    return {name: digest_file(folder / name) for name in _FILES}


def load_texts(folder: Path) -> Texts:
    """The texts of the folder of public data sets, and of the standard library at hand.

    Args:
        folder: holds ``squad_v1.1_dev.jsonl``, ``fairytaleqa.jsonl`` and ``wikitext2_valid.txt``.
    """
    asked = list(questions(folder, held_out=False))
    stories = {section for record in _records(folder / _STORIES) for section in record["sections"]}
    articles = (folder / _ARTICLES).read_text(encoding="utf-8").split("\n\n")
    prose = {each.context for each in asked} | stories | set(articles)
    return Texts(
        asked,
        sorted(text for text in prose if len(text) >= _SHORTEST),
        list(python_source(held_out=False)),
    )


def questions(folder: Path, *, held_out: bool) -> Iterator[Asked]:
    """SQuAD's questions with a span answer, of the held-out articles or of the others."""
    for record in _records(folder / _SQUAD):
        if (record["title"] in HELD_OUT) == held_out:
            context, answer = record["context"], record["answers"][0]
            yield Asked(context, record["question"], answer, context.index(answer))


def python_source(*, held_out: bool) -> Iterator[str]:
    """Modules of the standard library's packages: the held-out ones, or some of the others."""
    library = Path(sysconfig.get_path("stdlib"))
    files = [file for file in sorted(library.glob("*/*.py")) if _is_package(file.parent)]
    chosen = [file for file in files if (file.parent.name in HELD_OUT_PACKAGES) == held_out]
    random.Random(0).shuffle(chosen)  # noqa: S311 - not for secrets
    for file in chosen[:_MODULES]:
        text = file.read_text(encoding="utf-8", errors="replace")
        if len(text) >= _SHORTEST:
            yield text


def _is_package(folder: Path) -> bool:
    return folder.name not in {"site-packages", "test"} and (folder / "__init__.py").is_file()


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
