"""What is compared: ragpack's methods, and BM25 as the floor that needs no model."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl

from ragpack import registry
from ragpack.bench.questions import Question
from ragpack.errors import ConfigError
from ragpack.pipeline import ContextPacker, make_compressor
from ragpack.sentences import sentence_spans
from ragpack.types import Artifact, Passage, TextArtifact

__all__ = ["Arm", "Bm25", "Method", "Seen"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What an arm has made of one question's passages.

    ``cold_ms`` is the time of a request for which nothing was stored, ``warm_ms`` of one for which
    everything was.
    """

    artifacts: list[Artifact]
    cold_ms: float
    warm_ms: float


class Arm(Protocol):
    """Something that ranks parts of a question's passages."""

    name: str

    def see(self, question: Question) -> Seen:
        """Everything that can be done before a threshold is known."""
        ...

    def relevance(self, question: Question, seen: Seen, among: Sequence[int]) -> list[float] | None:
        """Of the passages at these places, as if there were no others; None if it cannot judge."""
        ...

    def rank(self, question: Question, seen: Seen, among: Sequence[int]) -> list[TextArtifact]:
        """For each passage its spans with their scores; none where it is not ``among`` them."""
        ...


class Method:
    """A method as ``ContextPacker`` runs it, its artifacts in a store of its own.

    Args:
        name: of the method, with settings as in ``recomp-extractive?ranking=false``; values are
            JSON, or else text.

    Raises:
        ConfigError: the method keeps no spans of the passages, so words cannot be counted.
        UnknownPluginError: no such method.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._store = registry.open_store("memory://")
        # The second packer meets each query for the first time, as a server would.
        method, _, query = name.partition("?")
        settings = {key: _value(value) for key, value in parse_qsl(query)}
        self._cold, self._warm = (
            ContextPacker(make_compressor(method, settings), store=self._store, strict=True)
            for _ in range(2)
        )
        self._method = self._cold.compressor
        if self._method.kind == "kv":
            raise _incomparable(name)

    def see(self, question: Question) -> Seen:
        """Pack twice, with the clock running, then take the artifacts from the store.

        Raises:
            RagpackError: the method cannot run here.
        """
        cold = _milliseconds(lambda: self._cold.pack(question.text, question.passages))
        self._cold.flush()
        warm = _milliseconds(lambda: self._warm.pack(question.text, question.passages))
        looked = self._warm.cache.fetch(question.passages, question.text)
        artifacts = [look.artifact for look in looked if look.artifact is not None]
        return Seen(artifacts, cold, warm)

    def relevance(self, question: Question, seen: Seen, among: Sequence[int]) -> list[float] | None:
        """The method's own judgement."""
        if not self._method.judges:
            return None
        return self._method.relevance(question.text, *_taken(question, seen, among))

    def rank(self, question: Question, seen: Seen, among: Sequence[int]) -> list[TextArtifact]:
        """The method's choice under a budget, which leaves the cut to whoever set the budget.

        Raises:
            ConfigError: what it chooses are no parts of the passages.
        """
        ranked = [TextArtifact()] * len(question.passages)
        chosen = self._method.select(question.text, *_taken(question, seen, among), budget=1)
        for place, choice in zip(among, chosen, strict=True):
            if not isinstance(choice, TextArtifact) or choice.text is not None:
                raise _incomparable(self.name)
            ranked[place] = choice
        return ranked


class Bm25:
    """BM25 of title and sentence over the question's own sentences.

    Raises:
        MissingExtraError: the package bm25s is not installed.
    """

    name = "bm25"

    def __init__(self) -> None:
        try:
            import bm25s
        except ModuleNotFoundError as error:
            raise registry.missing_extra(error, "the BM25 baseline") from error
        self._library = bm25s

    def see(self, question: Question) -> Seen:
        """Split, index and score; there is nothing to be stored."""
        made: list[Artifact] = []
        elapsed = _milliseconds(lambda: made.extend(self._scored(question)))
        return Seen(made, elapsed, elapsed)

    def relevance(self, question: Question, seen: Seen, among: Sequence[int]) -> list[float] | None:
        """None: its scores say nothing across requests."""
        return None

    def rank(self, question: Question, seen: Seen, among: Sequence[int]) -> list[TextArtifact]:
        """The sentences with their scores."""
        near = set(among)
        return [
            cast(TextArtifact, artifact) if place in near else TextArtifact()
            for place, artifact in enumerate(seen.artifacts)
        ]

    def _scored(self, question: Question) -> list[TextArtifact]:
        spans = [sentence_spans(passage.text) for passage in question.passages]
        texts = [
            f"{passage.title} {passage.text[start:end]}"
            for passage, own in zip(question.passages, spans, strict=True)
            for start, end in own
        ]
        scores = iter(self._scores(question.text, texts))
        return [TextArtifact(own, tuple(next(scores) for _ in own)) for own in spans]

    def _scores(self, query: str, texts: list[str]) -> list[float]:
        if not texts:
            return []
        index = self._library.BM25()
        tokenize = self._library.tokenize
        index.index(tokenize(texts, stopwords=None, show_progress=False), show_progress=False)
        (asked,) = tokenize(query, stopwords=None, return_ids=False, show_progress=False)
        scores: list[float] = index.get_scores(asked).tolist()
        return scores


def _incomparable(name: str) -> ConfigError:
    return ConfigError(f"{name} keeps no parts of the passages that could be compared")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _taken(
    question: Question, seen: Seen, among: Sequence[int]
) -> tuple[list[Passage], list[Artifact]]:
    return [question.passages[i] for i in among], [seen.artifacts[i] for i in among]


def _milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000.0
