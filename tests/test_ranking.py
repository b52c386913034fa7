"""Sentences of one request, ranked against each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragpack.ranking import ranked, relevance
from ragpack.sentences import sentence_spans
from ragpack.types import Passage

FILM = Passage("film", "The film was praised. It stars Mara Lind as the keeper.", title="Low Tide")
ACTOR = Passage("actor", "She was born in Oslo. Her voice is deep.", title="Mara Lind (actor)")
OTHER = Passage("other", "He was born in Rome. His voice is thin.", title="Max Ohm")
QUERY = "Where was the actor who plays the keeper born?"


def rank(passages, scores, query=QUERY):
    return ranked(query, passages, [sentence_spans(p.text) for p in passages], scores)


def test_a_title_mentioned_by_a_relevant_sentence_raises_its_passage() -> None:
    film, actor, other = rank([FILM, ACTOR, OTHER], [[0.0, 1.0], [0.3, 0.1], [0.3, 0.1]])
    assert actor[0] > other[0]
    assert actor[1] > other[1]
    assert film[1] > film[0]


def test_a_mention_by_an_irrelevant_sentence_raises_less() -> None:
    strong = rank([FILM, ACTOR, OTHER], [[0.0, 1.0], [0.3, 0.1], [1.0, 0.1]], query="")
    weak = rank([FILM, ACTOR, OTHER], [[0.0, 0.1], [0.3, 0.1], [1.0, 0.1]], query="")
    assert strong[1][1] > weak[1][1]


def test_a_passage_is_as_relevant_as_its_best_sentence_or_the_best_that_names_it() -> None:
    passages = [FILM, ACTOR, OTHER, Passage("none", "", title="Nobody")]
    spans = [sentence_spans(passage.text) for passage in passages]
    scores = [[0.2, 0.9], [-0.3, -0.1], [-0.3, -0.1], []]
    assert relevance(passages, spans, scores) == [0.9, 0.9, -0.1, float("-inf")]


def test_a_title_inside_another_word_is_no_mention() -> None:
    short = Passage("short", "It is red. It is old.", title="Mar")
    plain = Passage("plain", "It is red. It is old.", title="Mir")
    _, first, second = rank([FILM, short, plain], [[0.0, 1.0], [0.3, 0.1], [0.3, 0.1]])
    assert first == second


def test_the_querys_words_break_a_tie() -> None:
    _, (first, second) = rank([OTHER, ACTOR], [[0.0, 0.0], [0.5, 0.5]], query="deep voice")
    one, two = rank([OTHER, ACTOR], [[0.0, 0.0], [0.5, 0.5]], query="")[1]
    assert second - first > two - one


def test_relevance_spreads_within_a_passage_and_most_to_its_first_sentence() -> None:
    text = "It is red. It is old. It is high."
    passages = [Passage("a", text, title="Aa"), Passage("b", text, title="Bb")]
    near, far = rank(passages, [[0.1, 0.1, 1.0], [0.1, 0.1, 0.1]], query="")
    assert near[0] > near[1] > far[1]


def test_equal_scores_stay_where_they_are() -> None:
    assert rank([OTHER], [[2.0, 2.0]]) == [[2.0, 2.0]]


def test_nothing_to_rank() -> None:
    assert rank([], []) == []
    assert rank([Passage("none", "")], [[]]) == [[]]


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=60)), max_size=4), st.text())
def test_any_text_keeps_its_shape(rows, query) -> None:
    passages = [Passage(str(n), text, title=title) for n, (title, text) in enumerate(rows)]
    scores = [[0.1 * n for n, _ in enumerate(sentence_spans(p.text))] for p in passages]
    result = rank(passages, scores, query)
    assert [len(row) for row in result] == [len(row) for row in scores]
    assert all(
        after >= before - 1e-9
        for rows in zip(scores, result, strict=True)
        for before, after in zip(*rows, strict=True)
    )


@pytest.mark.parametrize("factor", [1.0, 10.0])
def test_the_order_does_not_depend_on_the_scale_of_the_scores(factor) -> None:
    scores = [[0.0, 1.0], [0.3, 0.1], [0.31, 0.1]]
    result = rank([FILM, ACTOR, OTHER], [[factor * s for s in row] for row in scores])
    flat = [value for row in result for value in row]
    assert sorted(range(6), key=flat.__getitem__) == sorted(
        range(6), key=[v for row in rank([FILM, ACTOR, OTHER], scores) for v in row].__getitem__
    )
