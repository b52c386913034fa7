"""Sentence spans: exact on any text, right on labelled text, quick on hostile text."""

import json
from itertools import pairwise

import pytest
import sentencex
from hypothesis import example, given
from hypothesis import strategies as st

from ragpack import sentences
from ragpack.sentences import LONGEST_SENTENCE, SPLITTER, sentence_spans

SPACES = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2007\u200a\u2028\u2029\u202f\u205f\u3000"
ANY_TEXT = st.text(st.characters(codec=None), max_size=200)
HOSTILE = st.text("aAbZ19.!?…\"'()-*•。！ก\x00\ud800\udfff😀" + SPACES, max_size=80)
LANGUAGES = st.sampled_from(["en", "de", "zh", "ja", "ar", "hi", "th", "ru", "xx", ""])


def pieces(text: str, language: str = "en") -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text, language)]


def check_spans(text: str, language: str = "en") -> None:
    spans = sentence_spans(text, language)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    for start, end in spans:
        assert 0 < end - start <= LONGEST_SENTENCE
        assert text[start:end] == text[start:end].strip()
    covered = "".join(text[start:end] for start, end in spans)
    assert "".join(covered.split()) == "".join(text.split())


@given(ANY_TEXT | HOSTILE, LANGUAGES)
@example("A\u00a0. B", "en")
@example("A\u3000. B\u2029- c", "en")
@example("\ud800 a. B\x00. C", "en")
def test_spans_cover_any_text_exactly(text: str, language: str) -> None:
    check_spans(text, language)
    assert sentence_spans(text, language) == sentence_spans(text, language)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\u3000 ", []),
        ("a", ["a"]),
        ("It rained. We left.", ["It rained.", "We left."]),
        ("At 3.5 p.m. in Fig. 3. He left.", ["At 3.5 p.m. in Fig. 3.", "He left."]),
        ("今天天气好。我们去公园吧！", ["今天天气好。", "我们去公园吧！"]),
        ("यह एक है। यह दो है।", ["यह एक है।", "यह दो है।"]),
        ("A heading\n\nIts text\nwraps.", ["A heading", "Its text\nwraps."]),
        ("One\r\n\r\nTwo", ["One", "Two"]),
        ("Fruit:\n- an apple\n• a pear", ["Fruit:", "- an apple", "• a pear"]),
        ("1. Wake up. Eat\n2. Work\n(b) Rest", ["1. Wake up.", "Eat", "2. Work", "(b) Rest"]),
        ("x" * 1500, ["x" * 1000, "x" * 500]),
    ],
)
def test_borders(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


def test_long_text_without_borders_is_cut_at_white_space() -> None:
    found = pieces("word " * 200_000)
    assert " ".join(found).split() == ["word"] * 200_000
    assert len(found) == 1000


@pytest.mark.parametrize(
    "unit", ["\n", " ", "\n   ", "\n- a", "(", '"', ". ", "a.", "A\u00a0. ", "1) ", "\ud800"]
)
def test_hostile_repetition_is_split(unit: str) -> None:
    check_spans(unit * (300_000 // len(unit)))


class RustPanic(BaseException):
    """As pyo3's PanicException: not an Exception."""


@given(ANY_TEXT | HOSTILE)
def test_a_panic_falls_back_to_rules(text: str) -> None:
    def panic(language: str, block: str) -> None:
        raise RustPanic

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentencex, "get_sentence_boundaries", panic)
        check_spans(text)
        assert pieces("Dr. Who met A.\nSmith. They left! 好。吗？") == [
            "Dr. Who met A.\nSmith.",
            "They left!",
            "好。",
            "吗？",
        ]


def test_an_interrupt_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(language: str, block: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sentencex, "get_sentence_boundaries", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sentence_spans("One. Two.")


def test_splitter_names_library_and_version() -> None:
    name, rules = SPLITTER.split("/")
    assert name.startswith("sentencex-1.")
    assert int(rules) >= 1


def test_real_text_in_eight_languages(shared_data) -> None:
    for path in sorted((shared_data / "multilingual").glob("*.jsonl")):
        language = "ja" if path.stem.startswith("jaquad") else path.stem[-2:]
        with path.open(encoding="utf-8") as lines:
            contexts = [json.loads(line)["context"] for line in lines]
        for context in contexts:
            check_spans(context, language)
        average = sum(len(sentence_spans(text, language)) for text in contexts) / len(contexts)
        assert average > 4.0, path.name


def test_thai_is_cut_at_the_blanks_between_its_clauses() -> None:
    clause = "หอสมุดแห่งชาติเปิดให้บริการทุกวันตั้งแต่เวลา"  # 44 letters
    text = f"{clause} {clause} {clause} 8 {clause} {clause} {clause} NFL {clause}"
    assert [piece.count(clause) for piece in pieces(text)] == [4, 3]
    assert " ".join(pieces(text)) == text
    assert pieces(f"{clause} {clause}") == [f"{clause} {clause}"]


def _borders(passage: dict) -> tuple[set[int], set[int]]:
    ends = {end for _, end in sentence_spans(passage["text"])}
    labelled, position = set(), -1
    for sentence in passage["sentences"]:
        position += len(sentence) + 1
        labelled.add(position)
    last = {len(passage["text"])}
    return ends - last, labelled - last


@pytest.mark.parametrize("by_rule", [False, True])
def test_borders_agree_with_hotpotqa(shared_data, monkeypatch, by_rule: bool) -> None:
    if by_rule:
        monkeypatch.setattr(
            sentences, "_sentence_ends", lambda block, _: sentences._ends_by_rule(block)
        )
    with (shared_data / "qa_dev.jsonl").open(encoding="utf-8") as lines:
        passages = [passage for line in lines for passage in json.loads(line)["passages"]]
    pairs = [_borders(passage) for passage in passages if "sentences" in passage]
    right = sum(len(ends & labelled) for ends, labelled in pairs)
    f1 = 2 * right / sum(len(ends) + len(labelled) for ends, labelled in pairs)
    assert len(pairs) == 900
    assert f1 > 0.98
