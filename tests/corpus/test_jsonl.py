"""Corpus records: good ones read, bad ones named by their line."""

import json
from pathlib import Path

import pytest

from ragpack.corpus import BadRecord, read_jsonl, read_passages
from ragpack.errors import InputError
from ragpack.types import Passage


def test_bad_lines_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    lines = [
        b'{"id": "a", "text": "One.", "title": "T", "metadata": {"x": 1}, "lang": "en"}',
        b"{broken",
        b"",
        b'{"id": 7, "text": "Two."}',
        b'{"text": "no id"}',
        b'{"id": "c", "text": 3}',
        b"[1, 2]",
        b'{"id": "\xff", "text": "x"}',
        b'{"id": "d", "text": "last, no newline"}',
    ]
    path.write_bytes(b"\n".join(lines))
    records = list(read_jsonl(path))
    good = [r for r in records if not isinstance(r, BadRecord)]
    bad = {r.line: r.reason for r in records if isinstance(r, BadRecord)}
    assert [r.passage.id for r in good] == ["a", "7", "d"]
    assert good[0].passage == Passage("a", "One.", "T", metadata={"x": 1, "lang": "en"})
    assert sorted(bad) == [2, 5, 6, 7, 8]
    assert "not JSON" in bad[2]
    assert "UTF-8" in bad[8]
    with pytest.raises(InputError, match="line 2"):
        read_passages(path)


def test_urls_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="download it first"):
        list(read_jsonl(Path("https://example.org/corpus.jsonl")))
    with pytest.raises(InputError, match="cannot read"):
        list(read_jsonl(tmp_path / "absent.jsonl"))


def test_any_json_text_survives(tmp_path: Path) -> None:
    texts = ["\x00", "\ud800", "漢字", "🙂", "a\u2028b", "x" * 100_000]
    path = tmp_path / "odd.jsonl"
    path.write_text(
        "\n".join(json.dumps({"id": str(n), "text": t}) for n, t in enumerate(texts)) + "\n"
    )
    assert [p.text for p in read_passages(path)] == texts
