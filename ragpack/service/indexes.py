"""The tenants' vector indexes: a folder for each, found by name and never by path."""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from ragpack import registry
from ragpack.cache import ArtifactCache
from ragpack.corpus import Record
from ragpack.errors import RetrievalError
from ragpack.index import Indexer, IndexSummary
from ragpack.protocols import TextEncoder
from ragpack.service.problems import Problem
from ragpack.types import Passage

__all__ = ["Indexes"]

T = TypeVar("T")

_log = logging.getLogger(__name__)
_MANIFEST = "manifest.json"


class Indexes:
    """Indexes below ``root``, as ``NAMESPACE/NAME``; without a root there are none.

    A search reads the index as it was last saved, by this process or another one. A change is made
    on a copy under a lock of the folder, and is there when it is saved.
    """

    def __init__(self, root: Path | None, encoder: TextEncoder) -> None:
        self._root = root
        self._encoder = encoder
        self._open: dict[Path, tuple[int, Any]] = {}
        self._lock = threading.Lock()

    def require(self) -> None:
        """Make sure that there is a root.

        Raises:
            Problem: there is none.
        """
        if self._root is None:
            raise Problem(404, "NotFound", "this service keeps no indexes (see --indexes)")

    def search(self, namespace: str, name: str, query: str, k: int) -> list[Passage]:
        """The ``k`` best passages.

        Raises:
            Problem: there is no such index, or it cannot be read.
        """
        folder = self._folder(namespace, name)
        found: list[Passage] = self._read(folder, name).search(query, k)
        return found

    def upsert(
        self,
        namespace: str,
        name: str,
        passages: Sequence[Passage],
        vectors: ArtifactCache,
        caches: Sequence[ArtifactCache],
    ) -> IndexSummary:
        """Add passages, or replace those of their ids, and compute what methods store for them.

        Raises:
            Problem: the index cannot be read.
            CacheUnavailable: the store cannot be written.
        """
        records = [Record(line, passage, 0) for line, passage in enumerate(passages, 1)]

        def change(index: Any) -> IndexSummary:
            return Indexer(index, vectors, caches).run(records)

        return self._change(namespace, name, change, create=True)

    def remove(self, namespace: str, name: str, passage_id: str) -> Passage:
        """Take a passage out of the index; returns it.

        Raises:
            Problem: there is no such index or passage, or the index cannot be read.
        """

        def change(index: Any) -> Passage:
            passage: Passage | None = index.get(passage_id)
            if passage is None:
                raise Problem(404, "NotFound", f"the index {name!r} has no such passage")
            index.remove([passage_id])
            return passage

        return self._change(namespace, name, change, create=False)

    def _change(self, namespace: str, name: str, change: Callable[[Any], T], *, create: bool) -> T:
        folder = self._folder(namespace, name)
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        elif not (folder / _MANIFEST).is_file():
            raise _no_index(name)
        with FileLock(folder / ".lock"):
            if (folder / _MANIFEST).is_file():
                index = self._load(folder, name)
            else:
                index = registry.load("retrievers", "faiss")(self._encoder)
            done = change(index)
            index.save(folder)
        return done

    def _read(self, folder: Path, name: str) -> Any:
        """The index as it was last saved; loaded again only where that has changed."""
        try:
            saved = (folder / _MANIFEST).stat().st_mtime_ns
        except OSError as error:
            raise _no_index(name) from error
        with self._lock:
            seen, index = self._open.get(folder, (None, None))
            if seen != saved:
                index = self._load(folder, name)
                self._open[folder] = (saved, index)
            return index

    def _load(self, folder: Path, name: str) -> Any:
        try:
            return registry.load("retrievers", "faiss").load(folder, self._encoder)
        except RetrievalError as error:  # its message names our folders
            _log.exception("an index cannot be used")
            detail = f"the index {name!r} cannot be used; the service's log says why"
            raise Problem(409, "RetrievalError", detail) from error

    def _folder(self, namespace: str, name: str) -> Path:
        if self._root is None:
            raise _no_index(name)
        return self._root / namespace / name


def _no_index(name: str) -> Problem:
    return Problem(404, "NotFound", f"there is no index {name!r}")
