"""Training of exit-mini on a few made-up questions."""

import json

import pytest
import torch
from safetensors.torch import load_file

from ragpack.compressors.exit_mini import ExitMini
from ragpack.train import exit_mini
from ragpack.train.exit_mini_data import HELD_OUT, IGNORE, load_groups, load_squad
from ragpack.train.lexical import LexicalIndex
from ragpack.types import Passage

HIDDEN = "Normans"
TOPICS = {f"Topic {n}": (f"moves{n // 2}", f"cause {n:02}") for n in range(30)}
FACTS = {**TOPICS, HIDDEN: ("burns", "oil")}


def squad(title: str) -> dict:
    verb, cause = FACTS[title]
    context = f"This text is about {title}. It {verb} because of {cause}. Nobody knows more."
    return {
        "title": title,
        "context": context,
        "question": f"Why is it that it {verb}?",
        "answers": [cause],
    }


def write(path, rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rows = [squad(title) for title in FACTS]
    write(folder / "squad_v1.1_dev.jsonl", rows)
    write(folder / "squad_v2.0_dev_unanswerable.jsonl", [rows[0] | {"answers": []}])
    pairs = [
        {"sentence": f"the {word} -lrb- red -rrb- is new .", "question": f"is the {word} new ?"}
        for word in ("tower", "bridge", "pier", "gate", "wall")
    ]
    hidden = {"sentence": "It burns because of oil .", "question": "why does it burn ?"}
    write(folder / "nqg_sentence_question.jsonl", [*pairs, hidden])
    return folder


def test_the_answering_sentence_is_labelled(data) -> None:
    assert HIDDEN in HELD_OUT
    for group, answers in load_squad(data):
        (sample,) = group.samples
        assert sample.labels == (0, 1, 0)
        assert answers[0] in sample.sentences[1]


def test_negatives_hold_no_answer_and_no_label(data) -> None:
    groups = load_groups(data, seed=1)
    twins = [group for group in groups if len(group.samples) == 2]
    assert twins
    for group in twins:
        positive, negative = group.samples
        assert 1 in positive.labels
        assert set(negative.labels) == {0}
        assert IGNORE not in negative.labels
        assert negative.text != positive.text


def test_pairs_leave_the_held_out_articles_out(data) -> None:
    sentences = [s for g in load_groups(data, 1) if not g.article for s in g.samples[0].sentences]
    assert "the tower ( red ) is new ." in sentences
    assert not [sentence for sentence in sentences if "oil" in sentence]


def test_data_are_the_same_for_a_seed(data) -> None:
    assert load_groups(data, 3) == load_groups(data, 3)


def test_nearest_by_rare_words() -> None:
    texts = ["a red gate and a wall", "a blue gate", *["a wall"] * 30]
    assert LexicalIndex(texts).nearest("which gate is red", 2) == [0, 1]


def test_an_interrupted_run_ends_as_an_unbroken_one(data, tmp_path, monkeypatch) -> None:
    settings = {"steps": 4, "batch": 2, "save_every": 2}
    unbroken = load_file(exit_mini.train(data, tmp_path / "one", **settings))
    step = exit_mini._Run.step

    def interrupted(run, number, items) -> None:
        if number == 3:
            raise KeyboardInterrupt
        step(run, number, items)

    with monkeypatch.context() as patch:
        patch.setattr(exit_mini._Run, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            exit_mini.train(data, tmp_path / "two", **settings)
    weights = exit_mini.train(data, tmp_path / "two", **settings)
    resumed = load_file(weights)
    assert resumed.keys() == unbroken.keys()
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)
    assert all(part.isfinite().all() for part in resumed.values())
    (artifact,) = ExitMini(weights=weights).compress(
        [Passage("p", "It is red. It is old.")], "Why?"
    )
    assert len(artifact.scores) == 2
