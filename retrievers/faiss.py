"""Passages by the cosine of their vectors, in a FAISS index kept in a folder."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from ragpack import models
from ragpack.config import DEFAULT_ENCODER
from ragpack.errors import InputError, RetrievalError
from ragpack.protocols import TextEncoder
from ragpack.retrievers.faiss_factory import make_index, train, training_rows, tune
from ragpack.retrievers.faiss_rows import keep_rows
from ragpack.retrievers.index_folder import Manifest, damaged, read_manifest, write_folder
from ragpack.retrievers.passage_table import PassageTable
from ragpack.text import model_text
from ragpack.types import Passage

__all__ = ["FaissRetriever"]

_INDEX = "index.faiss"
_PASSAGES = "passages.jsonl"
_GARBAGE_SHARE, _MOST_GARBAGE = 0.1, 1000
"""Dropped passages that a search puts up with before it cleans up."""


class FaissRetriever:
    """A vector index over passages that changes, is saved whole and refuses a foreign encoder.

    Searches may run in several threads; adding, removing and saving may not.

    Args:
        encoder: a name for :func:`ragpack.models.load_encoder`, or an encoder.
        factory: a FAISS index factory string; ``Flat`` is exact. What must be trained (``SQ8``,
            ``IVF…``) is trained on a sample of what was added before the first search or save, or
            as soon as there is plenty.

    Raises:
        ConfigError: the factory string is not one.
    """

    def __init__(
        self, encoder: str | TextEncoder = DEFAULT_ENCODER, *, factory: str = "Flat"
    ) -> None:
        self.encoder = models.load_encoder(encoder) if isinstance(encoder, str) else encoder
        self.factory = factory
        self.index = make_index(self.encoder.dim, factory)
        self._table = PassageTable()
        self._untrained: list[NDArray[np.float32]] = []
        self._settling = Lock()

    def __len__(self) -> int:
        """Different texts, which is vectors."""
        return len(self._table)

    def ids(self) -> list[str]:
        """The id of every passage, in the order of their coming."""
        return self._table.ids()

    def texts(self) -> Iterator[Passage]:
        """A passage of each text, in the order of the vectors."""
        found = (self._table.at(row) for row in range(self._table.rows))
        return (passage for passage in found if passage is not None)

    def get(self, passage_id: str) -> Passage | None:
        """The passage of that id, also where its text first came under another one."""
        return self._table.get(passage_id)

    def unseen(self, passages: Sequence[Passage]) -> list[int]:
        """Positions of the passages that :meth:`add` would need a vector of: each new text once.

        Raises:
            InputError: two passages have one id and different texts, or metadata is not JSON.
        """
        return self._table.unseen(passages)

    def add(self, passages: Sequence[Passage], vectors: NDArray[np.float32] | None = None) -> int:
        """Add passages, all or none; returns how many texts were new.

        A passage whose id is taken replaces the one that has it.

        Args:
            passages: any number; a text that is there under another id gets no second vector.
            vectors: [len(passages), d] from this index's encoder, of any length; only the rows of
                new texts are read. They are computed where none are given.

        Raises:
            InputError: two of the passages have one id and different texts, metadata is not JSON,
                or vectors are of another shape or not finite.
        """
        if vectors is not None:
            _check_vectors(vectors, (len(passages), self.encoder.dim))
        new = self.unseen(passages)
        if vectors is None:
            vectors = self._encode([passages[position].full_text for position in new])
        else:
            vectors = vectors[new]
        rows = _normalised(vectors)
        self._table.extend(passages)
        if self.index.is_trained:
            self.index.add(rows)
        else:
            self._untrained.append(rows)
            if sum(map(len, self._untrained)) >= 2 * training_rows(self.index):
                self._train()
        return len(new)

    def remove(self, passage_ids: Iterable[str]) -> int:
        """Remove the passages of these ids; returns how many there were."""
        return sum(self._table.drop(passage_id) for passage_id in passage_ids)

    def unnamed(self) -> Iterator[Passage]:
        """Texts that removing or replacing left without an id, until the next save or search."""
        return self._table.unnamed()

    def tune(self, settings: str) -> None:
        """Set what a search spends, such as ``nprobe=16`` or ``efSearch=64``; saving keeps it.

        Raises:
            ConfigError: the index has no such setting.
        """
        tune(self.index, settings)

    def search(self, query: str, k: int) -> list[Passage]:
        """The ``k`` nearest passages, best first; their scores are cosines."""
        return self.search_many([query], k)[0]

    def search_many(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The ``k`` nearest passages (fewer in a smaller index) for each query.

        Raises:
            InputError: ``k`` is below 1.
            RetrievalError: the index cannot be trained on what was added.
        """
        empty = not queries or not len(self)
        vectors = np.empty((len(queries), self.encoder.dim)) if empty else self._encode(queries)
        return self.search_vectors(vectors, k)

    def search_vectors(self, vectors: NDArray[Any], k: int) -> list[list[Passage]]:
        """The ``k`` nearest passages for each of the ``vectors`` [n, d], of any length.

        Raises:
            InputError: ``k`` is below 1.
            RetrievalError: the index cannot be trained on what was added.
        """
        if k < 1:
            raise InputError(f"k must be at least 1, not {k}")
        if not len(vectors) or not len(self):
            return [[] for _ in vectors]
        self._settle(min(_GARBAGE_SHARE * self._table.rows, _MOST_GARBAGE))
        wanted = min(k + self._table.idle, self._table.rows)
        scores, rows = self.index.search(_normalised(vectors), wanted)
        found = (self._found(*pair) for pair in zip(scores.tolist(), rows.tolist(), strict=True))
        return [list(islice(passages, k)) for passages in found]

    def save(self, folder: str | Path) -> None:
        """Write the index to ``folder``, or leave there what was.

        Raises:
            RetrievalError: the folder cannot be written, or the index cannot be trained.
        """
        self._settle(0)
        write_folder(
            Path(folder),
            {_INDEX: self._write_index, _PASSAGES: self._table.write},
            encoder=self.encoder.fingerprint.model,
            fingerprint=self.encoder.fingerprint.digest,
            factory=self.factory,
            count=len(self),
        )

    @classmethod
    def load(cls, folder: str | Path, encoder: str | TextEncoder | None = None) -> Self:
        """The index that was saved in ``folder``; its own encoder is loaded unless one is given.

        Raises:
            RetrievalError: there is none, it is damaged, or another encoder made it.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        retriever = cls(manifest.encoder if encoder is None else encoder, factory=manifest.factory)
        _check_encoder(folder, manifest, retriever.encoder)
        retriever._read(folder, manifest)
        return retriever

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.encoder.encode([model_text(text) for text in texts])

    def _train(self) -> None:
        """Train on what has been waiting, and add it."""
        if not self._untrained:
            return
        train(self.index, self.factory, self._untrained)
        self._untrained.clear()

    def _settle(self, most_garbage: float) -> None:
        """Train on what has been waiting; clean up where too much was dropped."""
        with self._settling:
            self._train()
            if self._table.garbage > most_garbage:
                self._table, rows = self._table.compacted()
                keep_rows(self.index, rows)

    def _found(self, scores: Sequence[float], rows: Sequence[int]) -> Iterator[Passage]:
        """The passages of the rows found; FAISS writes -1 where it found nothing more."""
        for score, row in zip(scores, rows, strict=True):
            passage = self._table.at(row) if row >= 0 else None
            if passage is not None:
                yield replace(passage, score=score)

    def _write_index(self, path: Path) -> None:
        faiss.write_index(self.index, str(path))

    def _read(self, folder: Path, manifest: Manifest) -> None:
        """Take over the saved index; FAISS trusts what it reads, so digests are checked first."""
        index, passages = (manifest.path(folder, name) for name in (_INDEX, _PASSAGES))
        try:
            self.index = faiss.read_index(str(index))
            with passages.open("rb") as lines:
                self._table = PassageTable.read(lines)
        except (RuntimeError, LookupError, ValueError, TypeError) as error:
            raise damaged(folder, f"its files cannot be read ({error})") from error
        counts = {manifest.count, len(self), self.index.ntotal}
        if len(counts) > 1 or self.index.d != self.encoder.dim:
            raise damaged(folder, "its vectors and passages do not match")


def _normalised(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """A copy of ``vectors`` [n, d] with rows of length 1; zero rows stay zero."""
    rows = np.array(vectors, dtype=np.float32, order="C")
    faiss.normalize_L2(rows)
    return rows


def _check_vectors(vectors: NDArray[Any], shape: tuple[int, int]) -> None:
    if vectors.shape != shape:
        raise InputError(f"vectors must have the shape {shape}, not {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise InputError("vectors hold NaN or infinity")


def _check_encoder(folder: Path, manifest: Manifest, encoder: TextEncoder) -> None:
    ours = encoder.fingerprint
    if ours.digest != manifest.fingerprint:
        raise RetrievalError(
            f"the index in {folder} was made by the encoder {manifest.encoder!r} (fingerprint "
            f"{manifest.fingerprint[:12]}), not by {ours.model!r} ({ours.digest[:12]}): "
            "load it with the first, or build it again with the second"
        )
