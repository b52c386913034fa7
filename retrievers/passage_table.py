"""The passages beside a vector index: ids, texts and the row of each text's vector."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ragpack.errors import InputError
from ragpack.types import Passage

__all__ = ["PassageTable"]

_EXCERPT = 60


class PassageTable:
    """Passages by id and by row; a text that comes under several ids has one row.

    Row numbers count the different texts in the order of their coming, so that a table read back
    from its own lines has the same rows.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Passage] = {}
        self._firsts: list[Passage] = []
        self._row_of: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._firsts)

    def unseen(self, passages: Sequence[Passage]) -> list[int]:
        """Positions of the texts that have no row yet, each once; changes nothing.

        Raises:
            InputError: an id is taken by another text, or metadata is not JSON.
        """
        ids: dict[str, Passage] = {}
        fresh: dict[str, int] = {}
        for position, passage in enumerate(passages):
            _check(passage, self._by_id.get(passage.id) or ids.setdefault(passage.id, passage))
            digest = passage.digest
            if digest not in self._row_of:
                fresh.setdefault(digest, position)
        return list(fresh.values())

    def extend(self, passages: Iterable[Passage]) -> None:
        """Add what is new; :meth:`unseen` has checked it."""
        for passage in passages:
            unscored = replace(passage, score=None)
            self._by_id.setdefault(passage.id, unscored)
            if self._row_of.setdefault(passage.digest, len(self)) == len(self):
                self._firsts.append(unscored)

    def get(self, passage_id: str) -> Passage | None:
        """The passage of that id."""
        return self._by_id.get(passage_id)

    def at(self, row: int) -> Passage:
        """The first passage that came with the text of ``row``."""
        return self._firsts[row]

    def lines(self) -> Iterator[str]:
        """The table as JSON Lines; a text that is there already is written as a reference."""
        for passage in self._by_id.values():
            first = self._firsts[self._row_of[passage.digest]]
            if first.id == passage.id:
                record: dict[str, Any] = {"title": passage.title, "text": passage.text}
            else:
                record = {"same_as": first.id}
            metadata = {"metadata": dict(passage.metadata)} if passage.metadata else {}
            yield json.dumps({"id": passage.id} | record | metadata, ensure_ascii=False)

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> "PassageTable":
        """The table that :meth:`lines` wrote.

        Raises:
            ValueError, TypeError, KeyError: the lines are something else.
        """
        table = cls()
        table.extend(table._read(json.loads(line)) for line in lines)
        return table

    def _read(self, record: dict[str, Any]) -> Passage:
        passage_id, metadata = record["id"], record.get("metadata", {})
        if "same_as" in record:
            return replace(self._by_id[record["same_as"]], id=passage_id, metadata=metadata)
        return Passage(passage_id, record["text"], record["title"], metadata=metadata)


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
