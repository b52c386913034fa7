"""What a corpus is read into: passages with the place they came from, or a place and a reason."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from ragpack.digest import digest_fields
from ragpack.errors import InputError
from ragpack.types import Passage

__all__ = [
    "FAILED",
    "LARGEST_RECORD",
    "BadRecord",
    "Columns",
    "Item",
    "Record",
    "passage_from",
    "refuse_url",
]

FAILED = "ragpack_failed"
"""The field that a dead-letter file adds to a record; it is passed over when the file is read."""

LARGEST_RECORD = 256 << 20
"""Bytes of a line or file; a larger one fails instead of filling the memory."""

_IDS = ("id", "_id", "doc_id", "docid", "passage_id", "pid")
_TEXTS = ("text", "content", "contents", "passage", "page_content", "body")
_ID_DIGITS = 16


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that could not be used, and why.

    ``fields`` is what there was of it, for the dead-letter file; ``line`` and ``source`` are those
    of :class:`Record`.
    """

    line: int
    reason: str
    source: str = ""
    fields: Mapping[str, Any] | None = None

    @property
    def where(self) -> str:
        """File and line, as messages name them."""
        return _where(self.source, self.line)

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" if self.where else self.reason


@dataclass(frozen=True, slots=True)
class Record:
    """A passage and where it came from.

    ``line`` counts lines of a JSON Lines file or rows of a table from 1, and is 0 for a document
    with a file of its own; ``source`` names the file; ``offset`` is how many bytes of the corpus
    have been read so far, for progress bars.
    """

    line: int
    passage: Passage
    offset: int
    source: str = ""

    @property
    def where(self) -> str:
        """File and line, as messages name them."""
        return _where(self.source, self.line)

    def failed(self, reason: str) -> BadRecord:
        """The same place, with its passage, as a failure."""
        passage = self.passage
        fields: dict[str, Any] = {"id": passage.id, "text": passage.text}
        if passage.title:
            fields["title"] = passage.title
        if passage.metadata:
            fields["metadata"] = dict(passage.metadata)
        return BadRecord(self.line, reason, self.source, fields)


Item = Record | BadRecord


@dataclass(frozen=True, slots=True)
class Columns:
    """Which fields of a record are its id, text and title, and which further ones to keep.

    A name that is None is detected: the first of the usual ones that the record has.
    ``metadata`` None keeps every other field.
    """

    id: str | None = None
    text: str | None = None
    title: str | None = None
    metadata: Sequence[str] | None = None

    def names(self, record: Collection[str]) -> tuple[str | None, str, str]:
        """The fields of ``record`` that hold id (None if there is none), text and title."""
        return (
            self.id or _first(_IDS, record),
            self.text or _first(_TEXTS, record) or "text",
            self.title or "title",
        )


def passage_from(
    fields: Mapping[str, Any], columns: Columns | None = None, *, name_by_content: bool = False
) -> Passage:
    """A passage from a record's fields.

    Args:
        fields: the record; a field ``metadata`` with an object is joined with what else is kept.
        columns: which field is what; detected unless given.
        name_by_content: give a record without an id field the id ``p`` and 16 hexadecimal digits
            of its title and text.

    Raises:
        InputError: a field is missing, has the wrong type or cannot be written as JSON.
    """
    columns = columns or Columns()
    rest = {name: value for name, value in fields.items() if name != FAILED}
    id_name, text_name, title_name = columns.names(rest)
    named = id_name is not None or not name_by_content
    raw_id = rest.pop(id_name, None) if id_name is not None else None
    text, title = rest.pop(text_name, None), rest.pop(title_name, None)
    ident = _checked_id(raw_id, id_name or "id") if named else ""
    of = repr(ident) if named else "the record"
    if not isinstance(text, str):
        raise InputError(f'"{text_name}" of {of} must be a string')
    if title is not None and not isinstance(title, str):
        raise InputError(f'"{title_name}" of {of} must be a string')
    return Passage(
        id=ident or f"p{digest_fields('passage', title or '', text)[:_ID_DIGITS]}",
        text=text,
        title=title or "",
        metadata=_metadata(rest, columns, of),
    )


def refuse_url(path: Path) -> None:
    """Raise where ``path`` is a URL that was made into a path.

    Raises:
        InputError: it is one.
    """
    if ":/" in str(path):
        url = str(path).replace(":/", "://", 1)
        raise InputError(f"{url} is a URL; ragpack reads local files, so download it first")


def _where(source: str, line: int) -> str:
    return ", ".join(part for part in (source, f"line {line}" if line else "") if part)


def _first(usual: Sequence[str], record: Collection[str]) -> str | None:
    return next((name for name in usual if name in record), None)


def _checked_id(value: Any, name: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise InputError(f'"{name}" must be a string that is not empty')
    return value


def _metadata(rest: dict[str, Any], columns: Columns, of: str) -> dict[str, Any]:
    own = rest.pop("metadata", None) or {}
    if not isinstance(own, dict):
        raise InputError(f'"metadata" of {of} must be an object')
    wanted = columns.metadata
    kept = {name: value for name, value in rest.items() if wanted is None or name in wanted}
    return {name: _plain(name, value, of) for name, value in (own | kept).items()}


def _plain(name: str, value: Any, of: str) -> Any:
    """``value`` as JSON holds it; dates and decimals as text."""
    if value is None or isinstance(value, str | int):
        return value
    try:
        return json.loads(json.dumps(value, default=_as_text, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f'"{name}" of {of} cannot be kept as JSON ({error}): '
            "name the fields to keep, without this one"
        ) from error


def _as_text(value: Any) -> str:
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__}")
