"""Every kind of corpus on disk, written by the libraries that users have."""

import datetime
import gzip
import json
import logging
import math
from decimal import Decimal
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from ragpack.corpus import BadRecord, Columns, Corpus
from ragpack.errors import InputError
from ragpack.types import Passage


def good(corpus: Corpus) -> list[Passage]:
    return [item.passage for item in corpus if not isinstance(item, BadRecord)]


def reasons(corpus: Corpus) -> list[str]:
    return [str(item) for item in corpus if isinstance(item, BadRecord)]


def write_parquet(path: Path, rows: list[dict], row_group: int = 100) -> Path:
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group)
    return path


def test_parquet_keeps_other_columns_as_json(tmp_path: Path) -> None:
    row = {
        "id": 7, "text": "Tin melts.", "title": None, "lang": "en", "price": Decimal("1.50"),
        "seen": datetime.datetime(2026, 1, 2, 3, 4), "tags": ["a", "b"], "at": {"x": 1.5},
    }  # fmt: skip
    corpus = Corpus(write_parquet(tmp_path / "c.parquet", [row]))
    metadata = {
        "lang": "en", "price": "1.50", "seen": "2026-01-02T03:04:00", "tags": ["a", "b"],
        "at": {"x": 1.5},
    }  # fmt: skip
    assert good(corpus) == [Passage("7", "Tin melts.", metadata=metadata)]


def test_a_value_that_is_not_json_fails_its_own_row(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "x", "w": 1.0}, {"id": "b", "text": "y", "w": math.nan}]
    path = write_parquet(tmp_path / "c.parquet", rows)
    assert [p.id for p in good(Corpus(path))] == ["a"]
    (reason,) = reasons(Corpus(path))
    assert "line 2" in reason
    assert "\"w\" of 'b' cannot be kept as JSON" in reason
    assert len(good(Corpus(path, Columns(metadata=[])))) == 2
    images = write_parquet(tmp_path / "i.parquet", [{"id": "a", "text": "x", "png": b"\x89P"}])
    assert "type bytes" in reasons(Corpus(images))[0]
    assert good(Corpus(images, Columns(metadata=["lang"]))) == [Passage("a", "x")]


def test_rows_without_an_id_are_named_by_their_content(tmp_path: Path) -> None:
    texts = [{"text": "one"}, {"text": "two"}, {"text": "one"}]
    path = write_parquet(tmp_path / "c.parquet", texts)
    ids = [p.id for p in good(Corpus(path))]
    assert ids[0] == ids[2] != ids[1]
    turned = write_parquet(tmp_path / "d.parquet", texts[::-1])
    assert [p.id for p in good(Corpus(turned))] == ids[::-1]


@pytest.mark.parametrize(
    "fields",
    [
        {"_id": "a", "text": "x", "title": "T"},
        {"docid": "a", "contents": "x", "title": "T"},
        {"id": "a", "page_content": "x", "title": "T"},
    ],
)
def test_usual_names_are_known(tmp_path: Path, fields: dict) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(fields))
    assert good(Corpus(path)) == [Passage("a", "x", "T")]


def test_other_names_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"key": "a", "abstract": "x", "head": "T", "id": "other"}))
    columns = Columns(id="key", text="abstract", title="head")
    assert good(Corpus(path, columns)) == [Passage("a", "x", "T", metadata={"id": "other"})]
    missing = reasons(Corpus(path, Columns(text="body")))
    assert missing == [f"{path}, line 1: \"body\" of 'other' must be a string"]


def test_a_saved_dataset(tmp_path: Path) -> None:
    rows = {"id": ["a", "b", "c"], "text": ["one", "two", "three"], "n": [1, 2, 3]}
    whole = datasets.Dataset.from_dict(rows)
    whole.select([2, 0]).save_to_disk(str(tmp_path / "ds"))
    corpus = Corpus(tmp_path / "ds")
    assert good(corpus) == [
        Passage("c", "three", metadata={"n": 3}),
        Passage("a", "one", metadata={"n": 1}),
    ]
    assert [item.offset for item in corpus] == [corpus.size // 2, corpus.size]


def test_a_dataset_of_several_splits_asks_which(tmp_path: Path) -> None:
    part = datasets.Dataset.from_dict({"id": ["a"], "text": ["one"]})
    datasets.DatasetDict(train=part, test=part).save_to_disk(str(tmp_path / "ds"))
    with pytest.raises(InputError, match="splits test, train"):
        Corpus(tmp_path / "ds")
    assert len(good(Corpus(tmp_path / "ds" / "train"))) == 1


def test_a_folder_is_read_with_its_subfolders(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "deep.txt").write_text("Deep text.")
    (tmp_path / "a.md").write_text("Intro\n\n# The *first* `heading`\n\nBody.")
    (tmp_path / "b" / "rows.jsonl").write_text('{"id": "r", "text": "A row."}\n')
    write_parquet(tmp_path / "b" / "rows.parquet", [{"id": "q", "text": "A cell."}])
    (tmp_path / "b" / "logo.png").write_bytes(b"\x89PNG")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "notes.md").write_text("# Hidden")
    (tmp_path / ".hidden.txt").write_text("Hidden.")
    corpus = Corpus(tmp_path)
    assert [p.id for p in good(corpus)] == ["a.md", "r", "q", "b/c/deep.txt"]
    assert good(corpus)[0].title == "The first heading"
    offsets = [item.offset for item in corpus]
    assert offsets == sorted(offsets)
    assert offsets[-1] == corpus.size


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Title\n=====\ntext", "Title"),
        ("```\n# comment\n```\n## Real [link](http://x) #\n", "Real link"),
        ("---\ntitle: front\n---\n\n# After\n", "After"),
        ("no heading, only #hash\n", ""),
        ("#\n", ""),
    ],
)
def test_markdown_titles(tmp_path: Path, text: str, title: str) -> None:
    path = tmp_path / "x.md"
    path.write_text(text)
    assert good(Corpus(path)) == [Passage("x.md", text, title)]


def test_links_are_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "corpus"
    outside.mkdir()
    folder.mkdir()
    (outside / "secret.txt").write_text("Secret.")
    (folder / "open.txt").write_text("Open.")
    (folder / "file.txt").symlink_to(outside / "secret.txt")
    (folder / "dir").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    with caplog.at_level(logging.WARNING):
        assert [p.text for p in good(Corpus(folder))] == ["Open."]
    assert "file.txt is a link" in caplog.text
    (tmp_path / "alias").symlink_to(folder)
    assert [p.text for p in good(Corpus(tmp_path / "alias"))] == ["Open."]


def test_mixed_encodings(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Zürich".encode())
    (tmp_path / "b.txt").write_bytes("Zürich".encode("utf-8-sig"))
    (tmp_path / "c.txt").write_bytes("Zürich".encode("utf-16"))
    (tmp_path / "d.txt").write_bytes("Zürich".encode("latin-1"))
    (tmp_path / "e.jsonl").write_bytes(b'\xef\xbb\xbf{"id": "e", "text": "Z\xc3\xbcrich"}\n')
    assert [p.text for p in good(Corpus(tmp_path))] == ["Zürich"] * 4
    assert reasons(Corpus(tmp_path)) == [
        "d.txt: not UTF-8 (byte 1): convert it, for example with iconv"
    ]


def test_empty_files_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.txt", "b.md", "c.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / "d.txt").write_text(" \n")
    (tmp_path / "e.parquet").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert good(Corpus(tmp_path)) == []
    assert caplog.text.count("is empty and was passed over") == 3
    (reason,) = reasons(Corpus(tmp_path))
    assert "e.parquet as Parquet" in reason


def test_packed_lines(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl.gz"
    rows = [{"id": str(n), "text": f"Text {n}."} for n in range(1000)]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    assert len(good(Corpus(path))) == 1000
    path.write_bytes(path.read_bytes()[:-2000])
    assert "ended before the end-of-stream marker" in reasons(Corpus(path))[-1]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("https://example.org/c.jsonl", "download it first"),
        ("s3://bucket/c.parquet", "download it first"),
        ("absent", "no such file"),
        ("", "no file of a known kind"),
    ],
)
def test_what_cannot_be_a_corpus(tmp_path: Path, path: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Corpus(Path(path) if ":" in path else tmp_path / path)


@pytest.mark.parametrize("name", ["c.parquet", "d.jsonl.gz"])
def test_a_file_of_another_kind_is_a_bad_record(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no such thing" * 10)
    (tmp_path / "z.txt").write_text("Fine.")
    assert [p.id for p in good(Corpus(tmp_path))] == ["z.txt"]
    assert name in reasons(Corpus(tmp_path))[0]
