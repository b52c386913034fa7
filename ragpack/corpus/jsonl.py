"""Passages from JSON Lines, plain or packed with gzip: one record a line."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from ragpack.errors import InputError
from ragpack.types import Passage

from .records import LARGEST_RECORD, BadRecord, Columns, Item, Record, passage_from, refuse_url

__all__ = ["read_jsonl", "read_passages"]

_RAW_BYTES = 10_000
_BOM = b"\xef\xbb\xbf"


def read_jsonl(path: Path, columns: Columns | None = None, source: str = "") -> Iterator[Item]:
    """Every record of the file, in order; blank lines are passed over.

    Args:
        path: a file; one whose name ends in ``.gz`` is unpacked on the way.
        columns: which field is what.
        source: what messages call the file.

    Raises:
        InputError: the path is a URL, or the file cannot be read.
    """
    refuse_url(path)
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(_lines(path, file), 1):
                if line.strip():
                    yield _item(line, number, file.tell(), columns, source)
    except (OSError, EOFError) as error:
        after = f" after line {number}" if number else ""
        what = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}{after}: {what}") from error


def read_passages(path: Path) -> list[Passage]:
    """All passages of a file.

    Raises:
        InputError: a record is bad; the message holds its line number.
    """
    passages = []
    for record in read_jsonl(path, source=str(path)):
        if isinstance(record, BadRecord):
            raise InputError(str(record))
        passages.append(record.passage)
    return passages


def _lines(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """Lines without a byte order mark; of one that is too long only the beginning."""
    packed = path.suffix == ".gz"
    stream = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if packed else file
    first = stream.readline(LARGEST_RECORD).removeprefix(_BOM)
    if first:
        yield first
    while line := stream.readline(LARGEST_RECORD):
        yield line
        while len(line) == LARGEST_RECORD and line[-1:] != b"\n":
            line = stream.readline(LARGEST_RECORD)  # the rest of it


def _item(line: bytes, number: int, at: int, columns: Columns | None, source: str) -> Item:
    fields: dict[str, Any] | None = None
    try:
        fields = _parse(line)
        return Record(number, passage_from(fields, columns), at, source)
    except InputError as error:
        raw = {"raw": line[:_RAW_BYTES].decode("utf-8", "backslashreplace").rstrip("\r\n")}
        return BadRecord(number, str(error), source, raw if fields is None else fields)


def _parse(line: bytes) -> dict[str, Any]:
    if len(line) == LARGEST_RECORD:
        raise InputError(f"longer than {LARGEST_RECORD >> 20} MiB")
    try:
        fields = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 (byte {error.start} of the line)") from error
    except (ValueError, RecursionError) as error:  # ValueError: also a number of too many digits
        raise InputError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InputError("a record must be a JSON object")
    return fields
