"""Cutting at a share of the words, and figures with their intervals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragpack import Passage
from ragpack.bench.cutting import cut, words_kept
from ragpack.bench.measures import answer_kept, estimate, support_kept, token_f1
from ragpack.bench.questions import Question
from ragpack.sentences import sentence_spans
from ragpack.types import Segment, TextArtifact

PASSAGES = (
    Passage("a", "One two three four. Five six."),
    Passage("b", "Seven eight. Nine ten eleven twelve."),
)
RANKED = [
    TextArtifact(sentence_spans(PASSAGES[0].text), (0.9, 0.2)),
    TextArtifact(sentence_spans(PASSAGES[1].text), (0.1, 0.8)),
]
QUESTION = Question("?", ("Five Six", "nobody"), PASSAGES, (True, False), ((2,), (20,)))


def kept(share: float, ranked=RANKED) -> list[str]:
    return [segment.kept_text for segment in cut(PASSAGES, ranked, share)]


def test_the_best_spans_are_taken_until_the_middle_of_one_is_beyond_the_limit() -> None:
    assert kept(1 / 12) == ["", ""]
    assert kept(2 / 12) == ["One two three four.", ""]
    assert kept(6 / 12) == ["One two three four.", "Nine ten eleven twelve."]
    assert kept(1.0) == [passage.text for passage in PASSAGES]


def test_spans_without_scores_are_taken_in_order() -> None:
    whole = [TextArtifact(((0, len(passage.text)),)) for passage in PASSAGES]
    assert kept(0.5, whole) == [PASSAGES[0].text, ""]


def test_words_are_counted_where_they_begin() -> None:
    assert words_kept([Segment(PASSAGES[0], ((0, 7), (20, 28)))]) == (4, 6)
    assert words_kept([Segment(PASSAGES[0], ((1, 7),))]) == (1, 6)


@given(st.text("ab. \n", max_size=60), st.floats(0.01, 1.0))
def test_any_cut_keeps_words_of_the_text(text: str, share: float) -> None:
    passage = Passage("p", text)
    (segment,) = cut([passage], [TextArtifact(sentence_spans(text))], share)
    part, whole = words_kept([segment])
    assert whole == len(text.split())
    assert 0 <= part <= whole
    assert part == whole or share < 1.0


def test_answers_and_support() -> None:
    first, second = Segment(PASSAGES[0], ((20, 29),)), Segment(PASSAGES[1], ((13, 36),))
    assert answer_kept(QUESTION, [first, second]) == (1.0, 1.0)
    assert support_kept(QUESTION, [first, second]) == (1.0, 2.0)
    assert answer_kept(QUESTION, [second]) == (0.0, 1.0)
    no_span = Question("?", (), PASSAGES, (True, False), ((), ()))
    assert answer_kept(no_span, [first, second]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("answer", "golds", "f1"),
    [
        ("The Eiffel tower!", ["eiffel tower"], 1.0),
        ("in Paris", ["Paris", "France"], 2 / 3),
        ("", ["the"], 1.0),
        ("", ["Paris"], 0.0),
        ("Rome Rome", ["Rome"], 2 / 3),
    ],
)
def test_f1_is_squads(answer: str, golds: list[str], f1: float) -> None:
    assert token_f1(answer, golds) == pytest.approx(f1)


def test_an_estimate_is_a_ratio_of_sums_with_an_interval_around_it() -> None:
    found = estimate([(1.0, 1.0), (0.0, 1.0), (0.0, 0.0)] * 50)
    assert found is not None
    assert (found.value, found.n) == (0.5, 100)
    assert 0.38 < found.low < 0.45 < 0.55 < found.high < 0.62
    assert found == estimate([(1.0, 1.0), (0.0, 1.0), (0.0, 0.0)] * 50)
    assert estimate([(0.0, 0.0)]) is None
