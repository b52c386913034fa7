"""A corpus on disk: one file, a folder of files, or a saved dataset; each file read by its name."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ragpack.errors import InputError

from .documents import read_document
from .jsonl import read_jsonl
from .records import BadRecord, Columns, Item, refuse_url
from .table import is_saved_dataset, read_dataset, read_parquet, size_of

__all__ = ["Corpus"]

_log = logging.getLogger(__name__)

_DOCUMENTS = (".txt", ".text", ".md", ".markdown")
_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_TABLE = ".parquet"
_KNOWN = (*_DOCUMENTS, *_LINES, _TABLE)


@dataclass(frozen=True)
class Corpus:
    """The records of a file, of a folder's files, or of a saved dataset.

    A folder is read with its subfolders, in the order of names. Hidden files, links and files of
    other kinds are passed over. Each iteration reads from the start, record by record, so memory
    does not grow with the corpus.

    Args:
        path: JSON Lines (also with gzip), Parquet, text, Markdown, a folder of these, or a folder
            that ``Dataset.save_to_disk`` made. A file with another name is read as JSON Lines.
        columns: which field of a record is what.

    Raises:
        InputError: the path is a URL, does not exist, or holds nothing that can be read.
    """

    path: Path
    columns: Columns = field(default_factory=Columns)

    def __post_init__(self) -> None:
        refuse_url(self.path)
        if not self.path.exists():
            raise InputError(f"cannot read {self.path}: there is no such file or folder")
        if not any(True for _ in self._files()):
            raise InputError(f"{self.path} holds no file of a known kind: {', '.join(_KNOWN)}")

    @cached_property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size_of(path) for path in self._files())

    def __iter__(self) -> Iterator[Item]:
        """Every record; a file that cannot be read is a bad record of its own."""
        before = 0
        for path in self._files():
            try:
                for item in self._read(path):
                    yield (
                        item
                        if isinstance(item, BadRecord)
                        else replace(item, offset=before + item.offset)
                    )
            except InputError as error:
                yield BadRecord(0, str(error), fields={"file": str(path)})
            before += size_of(path)

    def _read(self, path: Path) -> Iterator[Item]:
        alone = path == self.path
        source = str(path) if alone else path.relative_to(self.path).as_posix()
        name = path.name.lower()
        if path.is_dir():
            return read_dataset(path, self.columns, source)
        if name.endswith(_DOCUMENTS):
            return read_document(path, path.name if alone else source, source)
        if name.endswith(_TABLE):
            return read_parquet(path, self.columns, source)
        return read_jsonl(path, self.columns, source)

    def _files(self) -> Iterator[Path]:
        if self.path.is_dir() and not is_saved_dataset(self.path):
            yield from _walk(self.path)
        else:
            yield self.path


def _walk(folder: Path) -> Iterator[Path]:
    """The files of ``folder`` and its subfolders that can be read; links are not followed."""
    for directory, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(directory, name) for name in sorted(names)):
            if path.is_symlink():
                _log.warning("%s is a link and was passed over", path)
            elif path.is_file() and _known(path.name):
                yield path


def _known(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(_KNOWN)


def _refuse(error: OSError) -> None:
    raise InputError(f"cannot read {error.filename}: {error.strerror}") from error
