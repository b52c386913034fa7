"""The passages beside a vector index: ids, texts and the row of each text's vector.

Texts stay on disk: memory holds an id, a digest and an offset for each passage, so that an index
costs little more than its vectors.
"""

import errno
import json
import os
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ragpack.errors import InputError, RetrievalError
from ragpack.text import utf8
from ragpack.types import Passage

__all__ = ["PassageTable"]

_EXCERPT = 60


class PassageTable:
    """Passages by id and by row; a text that comes under several ids has one row.

    Row numbers count the different texts in the order of their coming. What is dropped or replaced
    leaves its row and its line on disk, until :meth:`compacted` makes a table without them.
    Reading is safe in several threads.
    """

    def __init__(self) -> None:
        # Without a buffer: what is written can be read at once, and closing cannot fail.
        self._spool = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (closed with the table)
        weakref.finalize(self, self._spool.close)
        self._ends = array("q", [0])
        self._row_at = array("q")  # the row of each line
        self._line_of: dict[str, int] = {}
        self._row_of: dict[bytes, int] = {}
        self._texts = array("q")  # the line that holds the text of each row
        self._firsts = array("q")  # the line whose id stands for each row
        self._users = array("q")  # how many ids each row has
        self.idle = 0
        """Rows whose text no id has any more."""

    def __len__(self) -> int:
        """Different texts that have an id."""
        return self.rows - self.idle

    @property
    def rows(self) -> int:
        """Different texts, those without an id too."""
        return len(self._users)

    @property
    def garbage(self) -> int:
        """Lines of passages that were dropped or replaced."""
        return len(self._row_at) - len(self._line_of)

    def ids(self) -> list[str]:
        """The id of every passage, in the order of their coming."""
        return list(self._line_of)

    def unseen(self, passages: Sequence[Passage]) -> list[int]:
        """Positions of the texts that have no row yet, each once; changes nothing.

        Raises:
            InputError: two of ``passages`` have one id, or metadata is not JSON.
        """
        ids: dict[str, Passage] = {}
        fresh: dict[bytes, int] = {}
        for position, passage in enumerate(passages):
            _check(passage, ids.setdefault(passage.id, passage))
            digest = bytes.fromhex(passage.digest)
            if digest not in self._row_of:
                fresh.setdefault(digest, position)
        return list(fresh.values())

    def extend(self, passages: Iterable[Passage]) -> None:
        """Add what is new and replace what has changed; :meth:`unseen` has checked it.

        Raises:
            RetrievalError: the folder for temporary files is full.
        """
        try:
            for passage in passages:
                self._put(passage)
        except OSError as error:
            raise RetrievalError(
                f"{tempfile.gettempdir()} cannot hold the index's passages: {error}"
            ) from error

    def drop(self, passage_id: str) -> bool:
        """Forget the passage of that id; whether there was one."""
        line = self._line_of.pop(passage_id, None)
        if line is None:
            return False
        row = self._row_at[line]
        self._users[row] -= 1
        if not self._users[row]:
            self.idle += 1
        elif self._firsts[row] == line:  # another id stands for the row now
            self._firsts[row] = min(n for n in self._line_of.values() if self._row_at[n] == row)
        return True

    def get(self, passage_id: str) -> Passage | None:
        """The passage of that id."""
        line = self._line_of.get(passage_id)
        return None if line is None else self._passage(line)

    def at(self, row: int) -> Passage | None:
        """The first passage that came with the text of ``row``; None where no id has it now."""
        return self._passage(self._firsts[row]) if self._users[row] else None

    def unnamed(self) -> Iterator[Passage]:
        """The texts that no id has any more, each under an id it had."""
        return (self._passage(self._texts[row]) for row in range(self.rows) if not self._users[row])

    def compacted(self) -> tuple["PassageTable", list[int]]:
        """A table without dropped lines, and the row that each of its rows has here."""
        table = PassageTable()
        kept: dict[int, None] = {}
        for line in sorted(self._line_of.values()):
            kept.setdefault(self._row_at[line])
            table.extend([self._passage(line)])
        return table, list(kept)

    def write(self, path: Path) -> None:
        """Write the table as JSON Lines; a text that came before is a reference to its line."""
        with path.open("wb") as file:
            for line in range(len(self._row_at)):
                file.write(self._raw(line))

    @classmethod
    def read(cls, lines: Iterable[bytes]) -> "PassageTable":
        """The table that :meth:`write` wrote.

        Raises:
            ValueError, TypeError, KeyError: the lines are something else.
        """
        table = cls()
        table.extend(table._parse(line) for line in lines)
        return table

    def _put(self, passage: Passage) -> None:
        old = self.get(passage.id)
        if old is None or not _equal(old, passage):
            self._append(passage)

    def _append(self, passage: Passage) -> None:
        """Write a line, then let the id name it."""
        line, digest = len(self._row_at), bytes.fromhex(passage.digest)
        row = self._row_of.get(digest, self.rows)
        known = row < self.rows
        text = {"same_as": self._texts[row]} if known else _text(passage)
        self._write_line({"id": passage.id} | text | _metadata(passage))
        self.drop(passage.id)
        self._row_at.append(row)
        self._line_of[passage.id] = line
        if not known:
            self._row_of[digest] = row
            self._texts.append(line)
            self._firsts.append(line)
            self._users.append(0)
            self.idle += 1
        if not self._users[row]:
            self._firsts[row] = line
            self.idle -= 1
        self._users[row] += 1

    def _write_line(self, record: dict[str, Any]) -> None:
        raw = utf8(json.dumps(record, ensure_ascii=False)) + b"\n"
        if self._spool.write(raw) != len(raw):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._ends.append(self._ends[-1] + len(raw))

    def _raw(self, line: int) -> bytes:
        if not 0 <= line < len(self._ends) - 1:
            raise IndexError(f"no line {line} in the table")
        start, end = self._ends[line], self._ends[line + 1]
        return os.pread(self._spool.fileno(), end - start, start)

    def _passage(self, line: int) -> Passage:
        return self._parse(self._raw(line))

    def _parse(self, raw: bytes) -> Passage:
        record = json.loads(raw.decode("utf-8", "surrogatepass"))
        passage_id, metadata = record["id"], record.get("metadata", {})
        if "same_as" in record:
            first = self._passage(record["same_as"])
            return Passage(passage_id, first.text, first.title, metadata=metadata)
        return Passage(passage_id, record["text"], record["title"], metadata=metadata)


def _text(passage: Passage) -> dict[str, Any]:
    return {"title": passage.title, "text": passage.text}


def _metadata(passage: Passage) -> dict[str, Any]:
    return {"metadata": dict(passage.metadata)} if passage.metadata else {}


def _equal(old: Passage, new: Passage) -> bool:
    """Whether nothing that the table keeps has changed."""
    return (old.title, old.text) == (new.title, new.text) and _metadata(old) == _metadata(new)


def _check(passage: Passage, other: Passage) -> None:
    """Whether ``passage`` can stand beside ``other``, which has its id."""
    if (other.title, other.text) != (passage.title, passage.text):
        raise InputError(
            f"two passages have the id {passage.id!r} and different text: "
            f"{other.full_text[:_EXCERPT]!r} and {passage.full_text[:_EXCERPT]!r}; "
            "give one of them another id"
        )
    try:
        json.dumps(dict(passage.metadata), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"metadata of passage {passage.id!r} cannot be written as JSON: {error}"
        ) from error
