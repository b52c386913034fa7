"""What every compressor must do, run over each that is registered."""

import copy
import json
import math
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest

from ragpack import registry
from ragpack.codec import decode_frame, encode_frame
from ragpack.errors import RagpackError
from ragpack.keys import make_key
from ragpack.models import load_token_counter
from ragpack.types import EmbedsArtifact, KVArtifact, Passage, Segment, TextArtifact

QUERY = "When does the harbour office open?"
PASSAGES = [
    Passage(
        "office",
        "The harbour office opens at six. Dogs are welcome on a lead. Parking is free.",
        title="Harbour office",
        score=0.9,
        metadata={"page": 4, "tags": ["a", "b"]},
    ),
    Passage("short", "Closed."),
    Passage("tower", "It was built in 1871. The tower is red, and 30 m high!", title="Tower"),
]
ODD = {
    "empty": Passage("odd", ""),
    "blank": Passage("odd", " \n\t\u3000"),
    "one character": Passage("odd", "a"),
    "100k characters": Passage("odd", "harbour " * 12_500),
    "CJK": Passage("odd", "港務局六點開門。狗必須繫繩。停車免費！", title="港"),
    "emoji": Passage("odd", "Open 🕕! Dogs 🐕‍🦺 on a lead. 👍🏽", title="🏴‍☠️"),
    "NUL": Passage("odd", "Opens\x00 at six. \x00", title="\x00"),
    "lone surrogate": Passage("odd", "Opens \ud800 at six. \udfff", title="\udc00"),
    "title alone": Passage("odd", "", title="Harbour office"),
}

CODE = """def fare(age: int) -> float:
    # children under six ride free
    if age < 6:
        return 0.0
    return 4.5 if age < 65 else 3.0


print([fare(age) for age in (3, 40, 70)])
"""
TABLE = """| ferry | leaves | fare |
|---|---|---|
| Port Ansel | 8:00 | 4.50 € |
| Merrow Hill | 9:30 | 6.00 € |
"""
# Text that is no English prose and yet no fault: it has to be compressed, not merely survived.
FOREIGN = {
    "Chinese": ("港务局早上六点开门。狗必须拴绳。停车是免费的！你几点来？", "港务局"),
    "Arabic": (
        "يفتح مكتب الميناء في السادسة. هل الكلاب مسموحة؟ نعم، بمقود. الموقف مجاني!",
        "الميناء",
    ),
    "Thai": ("สำนักงานท่าเรือเปิดเวลาหกโมงเช้า ต้องจูงสุนัขด้วยสายจูงตลอดเวลา ที่จอดรถไม่เสียค่าใช้จ่าย", ""),
    "code": (CODE, "fares.py"),
    "table": (TABLE, ""),
}


@pytest.fixture(scope="module", params=registry.names("compressors"))
def make(request, tiny_settings):
    """Makes the compressor that is registered under a name."""
    name = request.param
    return lambda: registry.load("compressors", name)(**tiny_settings(name))


@pytest.fixture(scope="module")
def method(make):
    return make()


@pytest.fixture(scope="module")
def counter():
    return load_token_counter("smollm2-135m-instruct")


def frames(method, passages, artifacts) -> list[bytes]:
    """The artifacts as bytes: equal bytes are equal artifacts."""
    keys = [make_key("test", method.kind, method.fingerprint, p, QUERY) for p in passages]
    return [encode_frame(key, artifact) for key, artifact in zip(keys, artifacts, strict=True)]


def stored(method, passages, artifacts) -> list:
    """The artifacts as they come back from a store."""
    keys = [make_key("test", method.kind, method.fingerprint, p, QUERY) for p in passages]
    values = frames(method, passages, artifacts)
    return [decode_frame(key, value) for key, value in zip(keys, values, strict=True)]


def check(passage: Passage, artifact) -> None:
    """An artifact of ``passage`` is well formed and points into its text."""
    spans = getattr(artifact, "spans", ())
    assert all(0 <= start < end <= len(passage.text) for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    if isinstance(artifact, TextArtifact):
        assert len(artifact.scores) in (0, len(spans))
        assert artifact.text is None or not spans
    elif isinstance(artifact, EmbedsArtifact):
        assert artifact.vectors.ndim == 2
        assert len(spans) in (0, len(artifact.vectors))
        assert np.isfinite(artifact.vectors).all()


def check_close(one, other) -> None:
    """Equal but for what the shape of a batch does to the last digits."""
    assert type(one) is type(other)
    if isinstance(one, TextArtifact):
        assert (one.spans, one.text) == (other.spans, other.text)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    elif isinstance(one, EmbedsArtifact):
        assert one.spans == other.spans
        np.testing.assert_allclose(one.vectors, other.vectors, atol=2e-3)
    elif isinstance(one, KVArtifact):
        np.testing.assert_array_equal(one.token_ids, other.token_ids)
        assert one.keys.shape == other.keys.shape


@pytest.mark.parametrize("budget", [None, 50])
def test_one_artifact_for_each_passage_in_order(method, budget) -> None:
    artifacts = method.compress(PASSAGES, QUERY)
    chosen = method.select(QUERY, PASSAGES, artifacts, budget)
    for passage, artifact, choice in zip(PASSAGES, artifacts, chosen, strict=True):
        check(passage, artifact)
        check(passage, choice)


def test_no_passages_give_no_artifacts(method) -> None:
    assert method.compress([], QUERY) == []
    assert method.select(QUERY, [], []) == []


def test_is_deterministic(method) -> None:
    first = method.compress(PASSAGES, QUERY)
    again = method.compress(PASSAGES, QUERY)
    assert frames(method, PASSAGES, first) == frames(method, PASSAGES, again)


def test_reads_the_query_only_if_it_says_so(method) -> None:
    if method.query_aware:
        pytest.skip("query-aware: its artifacts depend on the query")
    indexed = method.compress(PASSAGES, None)
    asked = method.compress(PASSAGES, QUERY)
    assert frames(method, PASSAGES, indexed) == frames(method, PASSAGES, asked)


def test_a_passage_does_not_depend_on_its_neighbours(method) -> None:
    together = method.compress(PASSAGES, QUERY)
    backwards = method.compress(PASSAGES[::-1], QUERY)[::-1]
    for passage, artifact, turned in zip(PASSAGES, together, backwards, strict=True):
        (alone,) = method.compress([passage], QUERY)
        check_close(artifact, alone)
        check_close(artifact, turned)


@pytest.mark.parametrize("budget", [None, 50])
def test_a_stored_artifact_selects_as_a_fresh_one(method, budget) -> None:
    fresh = method.compress(PASSAGES, QUERY)
    again = stored(method, PASSAGES, fresh)
    chosen = method.select(QUERY, PASSAGES, fresh, budget)
    rechosen = method.select(QUERY, PASSAGES, again, budget)
    if method.cached:
        assert frames(method, PASSAGES, again) == frames(method, PASSAGES, fresh)
    for one, other in zip(chosen, rechosen, strict=True):
        check_close(one, other)


def test_a_method_that_judges_gives_each_passage_a_relevance(method) -> None:
    if not method.judges:
        pytest.skip("does not judge: the retriever's scores have to")
    passages = [*PASSAGES, Passage("empty", "")]
    judged = method.relevance(QUERY, passages, method.compress(passages, QUERY))
    assert all(math.isfinite(value) for value in judged[:-1])
    assert judged[-1] == -math.inf
    assert method.relevance(QUERY, [], []) == []


def test_changes_none_of_its_inputs(method) -> None:
    passages = copy.deepcopy(PASSAGES)
    artifacts = method.compress(passages, QUERY)
    before = frames(method, passages, artifacts)
    method.select(QUERY, passages, artifacts, 50)
    assert passages == PASSAGES
    assert frames(method, passages, artifacts) == before


def test_keeps_no_more_tokens_than_it_was_given(method, counter) -> None:
    chosen = method.select(QUERY, PASSAGES, method.compress(PASSAGES, QUERY))
    for passage, choice in zip(PASSAGES, chosen, strict=True):
        if isinstance(choice, TextArtifact) and choice.text is None:
            kept = Segment(passage, choice.spans).text
            given = passage.full_text
            assert counter.count([kept]) <= counter.count([given])


@pytest.mark.parametrize("kind", ODD)
def test_odd_passages_give_a_result_or_a_clear_error(method, kind: str, capfd) -> None:
    passages = [PASSAGES[0], ODD[kind]]
    artifacts = []
    with suppress(RagpackError):
        artifacts = method.compress(passages, QUERY)
    passages = passages[: len(artifacts)]
    chosen = method.select(QUERY, passages, stored(method, passages, artifacts))
    for passage, artifact, choice in zip(passages, artifacts, chosen, strict=True):
        check(passage, artifact)
        check(passage, choice)
    assert capfd.readouterr() == ("", "")


def check_foreign(method, passages: list[Passage], query: str) -> None:
    """Every passage is taken, and under a budget every word of it that the method can read."""
    artifacts = stored(method, passages, method.compress(passages, query))
    chosen = method.select(query, passages, artifacts, 10_000)
    for passage, artifact, choice in zip(passages, artifacts, chosen, strict=True):
        check(passage, artifact)
        check(passage, choice)
        if isinstance(choice, TextArtifact) and choice.text is None:
            offered = "".join(passage.text[start:end] for start, end in choice.spans)
            assert offered
            if method.name != "llmlingua2":  # which leaves out what its vocabulary does not hold
                assert "".join(offered.split()) == "".join(passage.text.split())


@pytest.mark.parametrize("kind", FOREIGN)
def test_text_that_is_no_english_prose_is_taken(method, kind: str) -> None:
    text, title = FOREIGN[kind]
    check_foreign(method, [Passage("foreign", text, title), PASSAGES[0]], text[:20])


@pytest.mark.parametrize("language", ["zh", "ar", "th"])
def test_real_text_of_other_scripts_is_taken(method, shared_data, language: str) -> None:
    lines = (shared_data / "multilingual" / f"xquad_{language}.jsonl").read_text(encoding="utf-8")
    record = json.loads(lines.splitlines()[0])
    passage = Passage(record["id"], record["context"][:150], record["title"])
    check_foreign(method, [passage], record["qas"][0]["question"])


@pytest.mark.parametrize("query", ["", "\x00", "\ud800", "港", "why " * 5_000])
def test_odd_queries_give_a_result_or_a_clear_error(method, query: str) -> None:
    with suppress(RagpackError):
        chosen = method.select(query, PASSAGES, method.compress(PASSAGES, query))
        assert len(chosen) == len(PASSAGES)


def test_fingerprint_is_the_same_for_the_same_settings(make, method) -> None:
    assert make().fingerprint.digest == method.fingerprint.digest


@pytest.mark.parametrize("name", registry.names("compressors"))
def test_is_registered_under_its_own_name(name: str) -> None:
    assert registry.load("compressors", name).name == name
