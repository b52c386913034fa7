"""The splitter: exact slices, bounded tokens, nothing lost, stable ids."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragpack.corpus import Record, Splitter
from ragpack.errors import ConfigError
from ragpack.models import load_token_counter
from ragpack.protocols import TokenCounter
from ragpack.types import Passage

WORDS = st.sampled_from(
    ["tin", "Mr. Ash", "melts.", "Why?", "\n\n", "-", "  ", "漢字です。", "🙂", "naïve"]
)
TEXTS = st.one_of(
    st.lists(WORDS, max_size=200).map(" ".join),
    st.text(st.characters(codec=None), max_size=400),
    st.text("ab\n", max_size=3000),
)


@pytest.fixture(scope="session")
def counter() -> TokenCounter:
    return load_token_counter("all-minilm-l6-v2")


def document(text: str, **fields) -> Record:
    return Record(0, Passage("doc", text, **fields), len(text), "doc.txt")


def texts(splitter: Splitter, record: Record) -> list[str]:
    return [part.passage.text for part in splitter.split([record])]


def test_whole_sentences_fill_a_passage(counter: TokenCounter) -> None:
    text = "One two three four. Five six seven. Eight nine ten eleven. Twelve."
    splitter = Splitter(counter, 11)
    assert texts(splitter, document(text)) == [
        "One two three four. Five six seven.",
        "Eight nine ten eleven. Twelve.",
    ]


def test_parts_say_where_they_come_from(counter: TokenCounter) -> None:
    text = "One two three four. " * 9
    record = document(text, title="T", metadata={"url": "u"})
    parts = [part.passage for part in Splitter(counter, 16).split([record])]
    assert [p.id for p in parts] == [f"doc#{n}" for n in range(len(parts))]
    assert len(parts) > 2
    for part in parts:
        place = part.metadata["part_of"]
        assert place["id"] == "doc"
        assert part.text == text[place["start"] : place["end"]]
        assert (part.title, part.metadata["url"]) == ("T", "u")
        assert counter.count([part.full_text])[0] <= 16
    assert json.dumps(parts[0].metadata)
    assert parts == [part.passage for part in Splitter(counter, 16).split([record])]


def test_what_is_short_stays_itself(counter: TokenCounter) -> None:
    record = document("One two three four five six.")
    assert list(Splitter(counter, 8).split([record])) == [record]


@pytest.mark.parametrize(("text", "title"), [(" \n" * 9000, ""), ("Short.", "title " * 90)])
def test_one_passage_is_the_document_itself(counter: TokenCounter, text: str, title: str) -> None:
    record = document(text, title=title)
    assert list(Splitter(counter, 64).split([record])) == [record]


def test_what_stays_longer_than_the_window_is_said(counter, caplog) -> None:
    rows = [Record(n, Passage(str(n), "One two three. " * n), 0, "rows.jsonl") for n in (2, 40, 50)]
    assert list(Splitter(counter, 32).split(rows)) == rows
    assert "longer than the 32 tokens that are read of each: at least 2 passages" in caplog.text


def test_a_huge_document_is_split_as_it_is_asked_for() -> None:
    class Words:
        """Counts words, and the characters it was shown."""

        shown = 0

        def count(self, texts):
            self.shown += sum(map(len, texts))
            return [len(text.split()) for text in texts]

    counter = Words()
    text = "Rope, tin and salt went up the hill. " * 1_350_000
    parts = Splitter(counter, 200).split([document(text)])
    assert len(text) > 49_000_000
    first = [next(parts).passage for _ in range(50)]
    assert [part.id for part in first] == [f"doc#{n}" for n in range(50)]
    assert counter.shown < 100_000


def test_lines_and_rows_are_passages_already(counter: TokenCounter) -> None:
    row = Record(3, Passage("row", "One two three. " * 20), 0, "rows.jsonl")
    assert list(Splitter(counter, 16).split([row])) == [row]
    assert len(list(Splitter(counter, 16, record_tokens=16).split([row]))) > 4


def test_overlap_repeats_whole_sentences(counter: TokenCounter) -> None:
    text = " ".join(f"Sentence {n}." for n in range(30))
    plain = texts(Splitter(counter, 12), document(text))
    lapped = texts(Splitter(counter, 12, overlap=4), document(text))
    assert plain[:2] == [
        " ".join(f"Sentence {n}." for n in part) for part in (range(4), range(4, 8))
    ]
    assert lapped[:2] == [
        " ".join(f"Sentence {n}." for n in part) for part in (range(4), range(3, 7))
    ]
    assert lapped[-1].endswith("Sentence 29.")


def test_a_sentence_longer_than_a_passage_is_cut_at_white_space(counter: TokenCounter) -> None:
    text = "word " * 500
    parts = texts(Splitter(counter, 32), document(text))
    assert " ".join(parts) == text.strip()
    assert {word for part in parts for word in part.split()} == {"word"}


@pytest.mark.parametrize("text", ["x" * 50_000, "漢" * 5_000, "กขคง" * 3_000, "\0" * 20_000])
def test_text_without_white_space_is_cut_all_the_same(counter: TokenCounter, text: str) -> None:
    parts = texts(Splitter(counter, 64), document(text))
    assert "".join(parts) == text
    assert max(map(len, parts)) <= 64 * 8


@given(TEXTS, st.integers(8, 40), st.integers(0, 3))
def test_nothing_is_lost_and_nothing_is_too_long(
    counter: TokenCounter, text: str, tokens: int, overlap: int
) -> None:
    splitter = Splitter(counter, tokens, overlap=overlap)
    spans = list(splitter.spans(text, tokens))
    covered = {at for start, end in spans for at in range(start, end)}
    assert all(text[at].isspace() for at in range(len(text)) if at not in covered)
    assert spans == sorted(spans)
    assert all(start < end for start, end in spans)
    assert all(a[1] < b[1] for a, b in pairwise(spans))
    if not overlap:
        assert all(a[1] <= b[0] for a, b in pairwise(spans))


@given(st.lists(WORDS, max_size=300).map(" ".join), st.integers(8, 40))
def test_passages_of_words_hold_what_was_asked(
    counter: TokenCounter, text: str, tokens: int
) -> None:
    spans = list(Splitter(counter, tokens).spans(text, tokens))
    assert max(counter.count([text[a:b] for a, b in spans]), default=0) <= tokens


def test_the_languages_rules_are_used(counter: TokenCounter) -> None:
    text = "यह एक वाक्य है। यह दूसरा वाक्य है। " * 20
    record = document(text, metadata={"language": "hi"})
    parts = texts(Splitter(counter, 60), record)
    assert all(part.endswith("।") for part in parts)


def test_real_articles(counter: TokenCounter, shared_data) -> None:
    text = (shared_data / "train" / "wikitext2_test.txt").read_text(encoding="utf-8")[:300_000]
    parts = [p.passage for p in Splitter(counter, 256).split([document(text)])]
    counts = counter.count([p.text for p in parts])
    assert max(counts) <= 256
    assert sum(counts) / len(counts) > 200
    ends = [p.metadata["part_of"]["end"] for p in parts]
    starts = [p.metadata["part_of"]["start"] for p in parts]
    assert all(text[a:b].isspace() or a == b for a, b in zip(ends, starts[1:], strict=False))


@pytest.mark.parametrize(("tokens", "overlap"), [(7, 0), (64, 32), (64, -1)])
def test_wrong_sizes_are_refused(counter: TokenCounter, tokens: int, overlap: int) -> None:
    with pytest.raises(ConfigError):
        Splitter(counter, tokens, overlap=overlap)
