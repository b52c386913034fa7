"""RECOMP extractive: vectors per sentence, selection over all passages, exact spans."""

import json

import numpy as np
import pytest

from ragpack.compressors.recomp_extractive import DEFAULT_TOP_N, RecompExtractive
from ragpack.errors import ConfigError
from ragpack.sentences import sentence_spans
from ragpack.types import EmbedsArtifact, Fingerprint, Passage

PASSAGES = [
    Passage("p1", "The harbour opens at six. Dogs must be on a lead. Tickets cost four euros."),
    Passage("p2", ""),
    Passage("p3", "It was built in 1871. The lighthouse is red.", title="Lighthouse"),
    Passage("p4", "猫は魚が好きです。今日は雨です。"),
]
QUERY = "When was the lighthouse built?"


class WordEncoder:
    """Counts of eight letters as vectors: exact, quick, and every call is remembered."""

    dim = 8
    fingerprint = Fingerprint("letters", model="letters")

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def encode(self, texts):
        self.calls.append(list(texts))
        rows = [[text.lower().count(letter) for letter in "abcdefgh"] for text in texts]
        return np.array(rows, np.float32).reshape(-1, 8)


def kept(method, query, passages, budget=None) -> list[list[str]]:
    choice = method.select(query, passages, method.compress(passages, None), budget)
    return [
        [passage.text[start:end] for start, end in artifact.spans]
        for passage, artifact in zip(passages, choice, strict=True)
    ]


@pytest.fixture(scope="module")
def minilm():
    return RecompExtractive(top_n=1)


def test_finds_the_sentence_that_answers_and_reads_its_title(minilm) -> None:
    assert kept(minilm, QUERY, PASSAGES) == [[], [], ["It was built in 1871."], []]
    untitled = RecompExtractive(minilm.encoder, title=False, ranking=False, top_n=1)
    assert kept(untitled, QUERY, PASSAGES) == [[], [], ["The lighthouse is red."], []]


def test_stores_one_vector_per_sentence(minilm) -> None:
    artifacts = minilm.compress(PASSAGES, None)
    for passage, artifact in zip(PASSAGES, artifacts, strict=True):
        assert artifact.spans == sentence_spans(passage.text)
        assert artifact.vectors.shape == (len(artifact.spans), minilm.encoder.dim)
        assert artifact.vectors.dtype == np.float16


def test_a_batch_is_encoded_at_once_and_a_warm_query_alone() -> None:
    encoder = WordEncoder()
    method = RecompExtractive(encoder)
    artifacts = method.compress(PASSAGES, None)
    assert [len(call) for call in encoder.calls] == [7]
    assert encoder.calls[0][3] == "Lighthouse It was built in 1871."
    method.select(QUERY, PASSAGES, artifacts)
    assert encoder.calls[1:] == [[QUERY]]


def test_top_n_counts_over_all_passages_and_keeps_document_order() -> None:
    passages = [Passage("1", "Xaa. Xa. Xaaa."), Passage("2", "Yaaaa. Y.")]
    method = RecompExtractive(WordEncoder(), top_n=3)
    assert kept(method, "a", passages) == [["Xaa.", "Xaaa."], ["Yaaaa."]]


def test_threshold_alone_and_with_top_n() -> None:
    passages = [Passage("1", "Xaa. Xa. Xaaa."), Passage("2", "Yaaaa. Y.")]
    encoder = WordEncoder()
    above_two = RecompExtractive(encoder, threshold=2.0)
    assert kept(above_two, "a", passages) == [["Xaa.", "Xaaa."], ["Yaaaa."]]
    both = RecompExtractive(encoder, threshold=2.0, top_n=1)
    assert kept(both, "a", passages) == [[], ["Yaaaa."]]
    for high in (9.0, 1e300):  # the second is beyond float32
        assert kept(RecompExtractive(encoder, threshold=high), "a", passages) == [[], []]


def test_without_a_rule_the_budget_sees_every_sentence_with_its_score() -> None:
    passages = [Passage("1", "Xa. Xaa. " * 10)]
    method = RecompExtractive(WordEncoder(), ranking=False)
    artifacts = method.compress(passages, None)
    (ranked,) = method.select("a", passages, artifacts, budget=5)
    assert ranked.scores == (1.0, 2.0) * 10
    (best,) = method.select("a", passages, artifacts)
    assert best.scores == (1.0, 2.0, 1.0, 2.0) + (2.0,) * 8
    assert len(best.spans) == DEFAULT_TOP_N


def test_ranking_reads_the_request_as_a_whole_and_the_paper_does_not() -> None:
    passages = [
        Passage("film", "It is a film. It stars Mara Lind.", title="Low Tide"),
        Passage("actor", "She was born in Oslo. She is tall.", title="Mara Lind"),
        Passage("other", "He was born in Rome. He is old.", title="Max Ohm"),
    ]
    query = "Where was the star of Low Tide born?"
    ranked = RecompExtractive(top_n=3)
    plain = RecompExtractive(ranked.encoder, ranking=False, top_n=3)
    assert kept(ranked, query, passages)[2] == []
    assert kept(plain, query, passages)[2] == ["He was born in Rome."]
    assert ranked.fingerprint.digest == plain.fingerprint.digest


def test_a_threshold_holds_for_the_dot_product_whatever_ranking_adds() -> None:
    passages = [Passage("1", "Xaa. Xa. Xaaa.")]
    method = RecompExtractive(WordEncoder(), threshold=2.0)
    (choice,) = method.select("Xa", passages, method.compress(passages, None))
    assert [passages[0].text[start:end] for start, end in choice.spans] == ["Xaa.", "Xaaa."]
    assert choice.scores[0] > 2.0  # the first sentence is raised, but no other is let in


def test_ties_go_to_the_first_in_document_order(minilm) -> None:
    twins = [Passage(str(index), "The same words. Other words here.") for index in range(9)]
    method = RecompExtractive(minilm.encoder, top_n=4)
    found = kept(method, "the same words", twins)
    assert found == [["The same words."]] * 4 + [[]] * 5


def test_no_passages_and_no_sentences() -> None:
    method = RecompExtractive(WordEncoder())
    assert method.compress([], None) == []
    assert method.select("a", [], []) == []
    assert kept(method, "a", [Passage("1", ""), Passage("2", " \n")]) == [[], []]


def test_half_precision_leaves_the_selection_as_it_is(minilm, shared_data) -> None:
    with (shared_data / "qa_dev.jsonl").open(encoding="utf-8") as lines:
        questions = [json.loads(next(lines)) for _ in range(2)]
    method = RecompExtractive(minilm.encoder, top_n=5)
    for question in questions:
        passages = [Passage(p["id"], p["text"], p["title"]) for p in question["passages"]]
        half = method.compress(passages, None)
        texts = [
            f"{passage.title} {passage.text[start:end]}"
            for passage, artifact in zip(passages, half, strict=True)
            for start, end in artifact.spans
        ]
        vectors = np.split(method.encoder.encode(texts), np.cumsum([len(a.spans) for a in half]))
        full = [EmbedsArtifact(v, a.spans) for v, a in zip(vectors, half, strict=False)]
        chosen = method.select(question["question"], passages, half)
        exact = method.select(question["question"], passages, full)
        assert [c.spans for c in chosen] == [e.spans for e in exact]


def test_fingerprint_holds_what_is_stored_and_nothing_of_the_selection() -> None:
    def digest(**settings) -> str:
        return RecompExtractive(WordEncoder(), **settings).fingerprint.digest

    assert digest(top_n=3, threshold=0.5) == digest()
    assert len({digest(), digest(title=False), digest(language="de")}) == 3
    other = WordEncoder()
    other.fingerprint = Fingerprint("letters", model="letters", weights="changed")
    assert RecompExtractive(other).fingerprint.digest != digest()


@pytest.mark.parametrize("settings", [{"top_n": 0}, {"threshold": float("nan")}])
def test_wrong_settings_are_refused(settings) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        RecompExtractive(WordEncoder(), **settings)
