"""Reads passages from JSON Lines: one record a line, a bad one named by its number, never fatal.

A record is ``{"id": …, "text": …, "title": …, "metadata": {…}}``; only ``id`` and ``text`` are
needed, and any further field is kept in the passage's metadata.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragpack.errors import InputError
from ragpack.types import Passage

__all__ = ["BadRecord", "Record", "passage_from", "read_jsonl", "read_passages"]

_MAX_LINE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A line that could not be used, and why."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Record:
    """A passage with the line it came from and the bytes read so far, for progress bars."""

    line: int
    passage: Passage
    offset: int


def read_jsonl(path: Path) -> Iterator[Record | BadRecord]:
    """Every record of the file, in order; blank lines are passed over.

    Raises:
        InputError: the path is a URL, or the file cannot be opened.
    """
    if "://" in str(path) or ":/" in str(path):
        raise InputError(f"{path} is a URL; ragpack reads local files, so download it first")
    try:
        stream = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    offset = 0
    with stream:
        for number, line in enumerate(iter(lambda: stream.readline(_MAX_LINE), b""), 1):
            offset += len(line)
            if not line.strip():
                continue
            try:
                yield Record(number, passage_from(_parse(line)), offset)
            except InputError as error:
                yield BadRecord(number, str(error))


def read_passages(path: Path) -> list[Passage]:
    """All passages of a file.

    Raises:
        InputError: a record is bad; the message holds its line number.
    """
    passages = []
    for record in read_jsonl(path):
        if isinstance(record, BadRecord):
            raise InputError(f"{path}, {record}")
        passages.append(record.passage)
    return passages


def passage_from(fields: dict[str, Any]) -> Passage:
    """A passage from a record's fields.

    Raises:
        InputError: a field is missing or has the wrong type.
    """
    rest = dict(fields)
    ident, text, title = rest.pop("id", None), rest.pop("text", None), rest.pop("title", None)
    if isinstance(ident, int) and not isinstance(ident, bool):
        ident = str(ident)
    if not isinstance(ident, str) or not ident:
        raise InputError('"id" must be a string that is not empty')
    if not isinstance(text, str):
        raise InputError(f'"text" of {ident!r} must be a string')
    if title is not None and not isinstance(title, str):
        raise InputError(f'"title" of {ident!r} must be a string')
    metadata = rest.pop("metadata", {})
    if not isinstance(metadata, dict):
        raise InputError(f'"metadata" of {ident!r} must be an object')
    return Passage(id=ident, text=text, title=title or "", metadata=metadata | rest)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 (byte {error.start} of the line)") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InputError("a record must be a JSON object")
    return fields
