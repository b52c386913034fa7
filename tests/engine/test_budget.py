"""The budget holds to the token, keeps the best, and loses no passage's order."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ragpack.budget import Draft, assemble, fit, is_empty
from ragpack.models import load_token_counter
from ragpack.sentences import sentence_spans
from ragpack.types import Passage, TextArtifact, merge_spans, render

COUNTER = load_token_counter("smollm2-135m-instruct")
sentence = st.text("abc äß漢🙂\n", min_size=1, max_size=30).map(lambda body: f"A{body}.")
text = st.lists(sentence, min_size=1, max_size=6).map(" ".join)


@st.composite
def drafts(draw: st.DrawFn) -> list[Draft]:
    made = []
    for number in range(draw(st.integers(0, 6))):
        passage = Passage(
            str(number), draw(text), draw(st.sampled_from(["", "Title", "A title: 2"]))
        )
        spans = sentence_spans(passage.text)
        scores = draw(st.lists(st.floats(-3, 3), min_size=len(spans), max_size=len(spans)))
        choice = TextArtifact(spans, tuple(scores))
        made.append(Draft(passage, draw(st.sampled_from([choice, None, TextArtifact(spans)]))))
    return made


@given(drafts(), st.integers(1, 300))
@settings(max_examples=150, deadline=None)
def test_the_rendered_context_never_exceeds_the_budget(made: list[Draft], budget: int) -> None:
    segments = fit(made, budget, COUNTER)
    assert [segment.passage for segment in segments] == [draft.passage for draft in made]
    kept = [segment for segment in segments if not is_empty(segment)]
    assert COUNTER.count([render(kept)])[0] <= budget
    for segment in kept:
        assert list(segment.spans) == sorted(segment.spans)
        assert all(segment.passage.text[a:b].strip() for a, b in segment.spans)


@given(drafts())
@settings(max_examples=50, deadline=None)
def test_a_roomy_budget_changes_nothing(made: list[Draft]) -> None:
    assert fit(made, 100_000, COUNTER) == assemble(made)


def test_the_best_sentences_stay_when_not_all_fit() -> None:
    passage = Passage("p", "Low one here. The high one. Middle one there.")
    spans = sentence_spans(passage.text)
    draft = Draft(passage, TextArtifact(spans, (0.1, 0.9, 0.5)))
    budget = COUNTER.count(["The high one. Middle one there."])[0]
    assert fit([draft], budget, COUNTER)[0].kept_text == "The high one. Middle one there."
    assert fit([draft], budget - 1, COUNTER)[0].kept_text == "The high one."


def test_equal_scores_are_spent_in_document_order() -> None:
    passages = [Passage(str(n), f"Sentence number {n} stands here.") for n in range(4)]
    made = [Draft(p, TextArtifact(((0, len(p.text)),), (1.0,))) for p in passages]
    budget = COUNTER.count([render(assemble(made[:2]))])[0] + 2
    kept = [s.passage.id for s in fit(made, budget, COUNTER) if not is_empty(s)]
    assert kept == ["0", "1"]


def test_an_unscored_passage_counts_as_middling() -> None:
    text = "Words that fill the line."
    best, unknown, worst = (Passage(name, f"{name}: {text}") for name in "abc")
    whole = [((0, len(p.text)),) for p in (best, unknown, worst)]
    made = [
        Draft(worst, TextArtifact(whole[2], (0.0,))),
        Draft(unknown, None),
        Draft(best, TextArtifact(whole[0], (1.0,))),
    ]
    budget = COUNTER.count([render(assemble(made[1:]))])[0] + 2
    kept = [s.passage.id for s in fit(made, budget, COUNTER) if not is_empty(s)]
    assert kept == ["b", "a"]


def test_an_abstract_is_kept_whole_or_not_at_all() -> None:
    draft = Draft(Passage("p", "Long original text."), TextArtifact(text="A short summary of it."))
    cost = COUNTER.count(["A short summary of it."])[0]
    assert fit([draft], cost, COUNTER)[0].kept_text == "A short summary of it."
    assert is_empty(fit([draft], cost - 1, COUNTER)[0])


@given(text, st.data())
def test_merged_spans_cover_the_same_words(body: str, data: st.DataObject) -> None:
    spans = [s for s in sentence_spans(body) if data.draw(st.booleans())]
    merged = merge_spans(body, spans)
    words = " ".join(body[a:b] for a, b in spans).split()
    assert " ".join(body[a:b] for a, b in merged).split() == words
    assert all(a[1] < b[0] for a, b in pairwise(merged))
