"""The dead-letter file: what could not be indexed, with reasons, in a shape that can be read again.

Each line is the record as it was, or as much of it as JSON can hold, and a field
``ragpack_failed`` with its place and the reason. Mend what is to be mended and index the file
itself: the field is passed over.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

from ragpack.errors import InputError

from .records import FAILED, BadRecord

__all__ = ["DeadLetters"]


class DeadLetters:
    """Writes failures to a file that appears, or goes, when the ``with`` block has ended.

    Until then they are in a file beside it, so that a job may read the old one.

    Args:
        path: the file; one that is there is replaced, and removed where nothing failed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._part = path.with_name(f".{path.name}.part")
        self._file: IO[str] | None = None

    def add(self, bad: BadRecord) -> None:
        """Write a failure.

        Raises:
            InputError: the file cannot be written.
        """
        place = {"source": bad.source, "line": bad.line, "reason": bad.reason}
        line = json.dumps(_jsonable(bad.fields or {}) | {FAILED: place})
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._part.open("w", encoding="ascii")
            self._file.write(line + "\n")
        except OSError as error:
            raise InputError(f"{self._part} cannot be written: {error.strerror}") from error
        self.count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Put the file in its place, or remove an earlier job's; leave that where a job broke off.

        Raises:
            InputError: the file cannot be written.
        """
        try:
            if self._file is not None:
                self._file.close()
            if kind is not None:
                self._part.unlink(missing_ok=True)
            elif self._file is not None:
                self._part.replace(self.path)
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{self.path} cannot be written: {error.strerror}") from error


def _jsonable(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if _is_json(value)}


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
