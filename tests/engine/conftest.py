"""Methods that misbehave in known ways: real compressors, registered nowhere."""

import threading
from collections.abc import Callable, Sequence

import pytest

from ragpack.models import load_token_counter
from ragpack.protocols import Compressor, TokenCounter
from ragpack.sentences import sentence_spans
from ragpack.types import Artifact, Fingerprint, Passage, TextArtifact


class Scripted(Compressor):
    """Scores sentences by how many of the query's words they hold; does what it is told to.

    ``before`` is called with the passages of every call to ``compress``, and may raise or wait.
    """

    name = "scripted"
    kind = "text"
    query_aware = True

    def __init__(self, before: Callable[[Sequence[Passage]], None] = lambda _: None) -> None:
        self.before = before
        self.calls: list[list[str]] = []
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.name)

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        with self._lock:
            self.calls.append([passage.id for passage in passages])
        self.before(passages)
        words = set((query or "").lower().split())
        made: list[Artifact] = []
        for passage in passages:
            spans = sentence_spans(passage.text)
            hits = [len(words & set(passage.text[a:b].lower().split())) for a, b in spans]
            made.append(TextArtifact(spans, tuple(map(float, hits))))
        return made


@pytest.fixture
def scripted() -> type[Scripted]:
    return Scripted


@pytest.fixture(scope="session")
def counter() -> TokenCounter:
    return load_token_counter("smollm2-135m-instruct")


@pytest.fixture
def passages() -> list[Passage]:
    return [
        Passage("a", "Ada wrote the first program. She lived in London. Tea was cheap.", "Ada"),
        Passage("b", "The engine was never built. Ada wrote notes about it."),
        Passage("c", "Rain fell for a week. Nobody wrote it down.", "Weather"),
    ]
