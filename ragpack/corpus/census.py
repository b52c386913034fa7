"""Which passages a corpus holds, so that those which an index has beyond them can be found."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from ragpack.types import Passage

from .records import BadRecord, Item
from .split import document_of

__all__ = ["Census", "PassageIndex"]


class PassageIndex(Protocol):
    """What a census reads of an index."""

    def ids(self) -> list[str]:
        """The id of every passage."""
        ...

    def get(self, passage_id: str) -> Passage | None:
        """The passage of that id."""
        ...


class Census:
    """Counts the passages of a corpus while they pass by."""

    def __init__(self) -> None:
        self.complete = True
        """False once a record could not be read: what it held may still be in the corpus."""
        self._ids: set[str] = set()
        self._documents: set[str] = set()

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items."""
        for item in items:
            if isinstance(item, BadRecord):
                self.complete = False
            else:
                self._ids.add(item.passage.id)
                if (document := document_of(item.passage)) != item.passage.id:
                    self._documents.add(document)
            yield item

    def missing(self, index: PassageIndex) -> list[str]:
        """Ids of the index that the corpus does not have."""
        return [passage_id for passage_id in index.ids() if passage_id not in self._ids]

    def outdated(self, index: PassageIndex) -> list[str]:
        """Those of them that are rests of a document which the corpus has in another form.

        They are there when a document has become shorter, or was cut in another way.
        """
        return [i for i in self.missing(index) if self._is_rest(index, i)]

    def _is_rest(self, index: PassageIndex, passage_id: str) -> bool:
        if passage_id in self._documents:
            return True
        document = passage_id.rpartition("#")[0]
        if document not in self._documents and document not in self._ids:
            return False
        passage = index.get(passage_id)
        return passage is not None and document_of(passage) == document
