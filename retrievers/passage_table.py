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
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ragpack.errors import InputError, RetrievalError
from ragpack.text import utf8
from ragpack.types import Passage

__all__ = ["PassageTable"]

_EXCERPT = 60


class PassageTable:
    """Passages by id and by row; a text that comes under several ids has one row.

    Row numbers count the different texts in the order of their coming, so that a table read back
    from its own lines has the same rows. Reading is safe in several threads.
    """

    def __init__(self) -> None:
        # Without a buffer: what is written can be read at once, and closing cannot fail.
        self._spool = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (closed with the table)
        weakref.finalize(self, self._spool.close)
        self._ends = array("q", [0])
        self._line_of: dict[str, int] = {}
        self._row_of: dict[bytes, int] = {}
        self._firsts = array("q")

    def __len__(self) -> int:
        return len(self._firsts)

    def unseen(self, passages: Sequence[Passage]) -> list[int]:
        """Positions of the texts that have no row yet, each once; changes nothing.

        Raises:
            InputError: an id is taken by another text, or metadata is not JSON.
        """
        ids: dict[str, Passage] = {}
        fresh: dict[bytes, int] = {}
        for position, passage in enumerate(passages):
            _check(passage, self.get(passage.id) or ids.setdefault(passage.id, passage))
            digest = bytes.fromhex(passage.digest)
            if digest not in self._row_of:
                fresh.setdefault(digest, position)
        return list(fresh.values())

    def extend(self, passages: Iterable[Passage]) -> None:
        """Add what is new; :meth:`unseen` has checked it.

        Raises:
            RetrievalError: the folder for temporary files is full.
        """
        try:
            for passage in passages:
                self._add(passage)
        except OSError as error:
            raise RetrievalError(
                f"{tempfile.gettempdir()} cannot hold the index's passages: {error}"
            ) from error

    def get(self, passage_id: str) -> Passage | None:
        """The passage of that id."""
        line = self._line_of.get(passage_id)
        return None if line is None else self._passage(line)

    def at(self, row: int) -> Passage:
        """The first passage that came with the text of ``row``."""
        return self._passage(self._firsts[row])

    def write(self, path: Path) -> None:
        """Write the table as JSON Lines; a text that came before is a reference to its line."""
        with path.open("wb") as file:
            for line in range(len(self._ends) - 1):
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

    def _add(self, passage: Passage) -> None:
        if passage.id not in self._line_of:
            line = len(self._ends) - 1
            row = self._row_of.setdefault(bytes.fromhex(passage.digest), len(self))
            if row == len(self):
                self._firsts.append(line)
                record: dict[str, Any] = {"title": passage.title, "text": passage.text}
            else:
                record = {"same_as": self._firsts[row]}
            self._line_of[passage.id] = line
            self._append({"id": passage.id} | record | _metadata(passage))

    def _append(self, record: dict[str, Any]) -> None:
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


def _metadata(passage: Passage) -> dict[str, Any]:
    return {"metadata": dict(passage.metadata)} if passage.metadata else {}


def _check(passage: Passage, other: Passage) -> None:
    """Whether ``passage`` can stand beside ``other``, which has its id."""
    if (other.title, other.text) != (passage.title, passage.text):
        raise InputError(
            f"two passages have the id {passage.id!r} and different text: "
            f"{other.full_text[:_EXCERPT]!r} and {passage.full_text[:_EXCERPT]!r}; "
            "give one of them another id, or build a new index"
        )
    try:
        json.dumps(dict(passage.metadata), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"metadata of passage {passage.id!r} cannot be written as JSON: {error}"
        ) from error
