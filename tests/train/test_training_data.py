"""The groups that training reads, from a few made-up questions."""

import pytest

from ragpack.errors import ConfigError
from ragpack.train.exit_mini_data import (
    HELD_OUT,
    IGNORE,
    excluded_texts,
    load_groups,
    load_squad,
    source_digests,
    training_groups,
)
from ragpack.train.lexical import LexicalIndex


def test_the_answering_sentence_is_labelled(training_data) -> None:
    for group, answers in load_squad(training_data):
        (sample,) = group.samples
        assert sample.labels == (0, 1, 0)
        assert answers[0] in sample.sentences[1]


def test_negatives_hold_no_answer_and_no_label(training_data) -> None:
    groups = load_groups(training_data, seed=1)
    twins = [group for group in groups if len(group.samples) == 2]
    assert twins
    for group in twins:
        positive, negative = group.samples
        assert 1 in positive.labels
        assert set(negative.labels) == {0}
        assert IGNORE not in negative.labels
        assert negative.text != positive.text


def test_pairs_leave_the_held_out_articles_out(training_data) -> None:
    sentences = [
        s for g in load_groups(training_data, 1) if not g.article for s in g.samples[0].sentences
    ]
    assert "the tower ( red ) is new ." in sentences
    assert not [sentence for sentence in sentences if "oil" in sentence]


def test_data_are_the_same_for_a_seed(training_data) -> None:
    assert load_groups(training_data, 3) == load_groups(training_data, 3)


def test_nearest_by_rare_words() -> None:
    texts = ["a red gate and a wall", "a blue gate", *["a wall"] * 30]
    assert LexicalIndex(texts).nearest("which gate is red", 2) == [0, 1]


def test_training_never_sees_the_held_out_articles(training_data) -> None:
    assert {group.article for group in load_groups(training_data, 1)} & HELD_OUT
    assert not {group.article for group in training_groups(training_data, 1)} & HELD_OUT


def test_excluded_questions_and_passages_are_left_out(training_data, tmp_path) -> None:
    evaluation = tmp_path / "evaluation.jsonl"
    evaluation.write_text(
        '{"question": "WHY is it, that it moves3?", "passages": [{"text": "A. It moves5 '
        'because of cause 10. B."}]}\n'
    )
    groups = training_groups(training_data, 1, excluded_texts(evaluation))
    texts = "".join(" ".join((g.question, *(s.text for s in g.samples))) for g in groups)
    assert "moves4" in texts
    assert "that it moves3" not in texts
    assert "cause 10" not in texts


def test_the_public_data_share_nothing_with_the_evaluation(shared_data) -> None:
    excluded = excluded_texts(shared_data / "qa_dev.jsonl")
    assert len(excluded) > 10_000
    groups = [group for group, _ in load_squad(shared_data / "train")]
    assert groups
    assert all(excluded.isdisjoint(group.keys()) for group in groups)


@pytest.mark.parametrize("content", [None, "no JSON", '{"question": "Why?"}', "[]"])
def test_a_file_to_exclude_that_is_none(tmp_path, content) -> None:
    path = tmp_path / "evaluation.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"evaluation\.jsonl is no file of questions"):
        excluded_texts(path)


def test_data_that_are_not_there_are_named(tmp_path) -> None:
    (tmp_path / "squad_v1.1_dev.jsonl").touch()
    with pytest.raises(ConfigError, match=r"no squad_v2.*no nqg") as error:
        source_digests(tmp_path)
    assert "v1.1" not in str(error.value)
