"""A few made-up questions in the files that training reads."""

import json
from pathlib import Path

import pytest

HIDDEN = "Normans"  # one of the articles that training never sees
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


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="session")
def training_data(tmp_path_factory) -> Path:
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
