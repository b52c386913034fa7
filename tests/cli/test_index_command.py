"""``ragpack index`` over every kind of corpus: documents, failures, changes, estimates."""

import json
import re
import sys
from pathlib import Path

import pytest

from ragpack.cli import progress
from ragpack.keys import make_keys
from ragpack.models import load_encoder
from ragpack.models.dense import DenseEncoder
from ragpack.registry import open_store
from ragpack.retrievers.faiss import FaissRetriever
from ragpack.types import Passage

METHODS = ["--methods", "recomp-mini"]


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(*names: str) -> list[dict]:
    return [{"id": name, "title": name, "text": f"All about {name}."} for name in names]


@pytest.fixture
def job(ragpack, tmp_path):
    """Run ``ragpack index`` into one folder, and say what it did."""

    def run(corpus, *more, code=0):
        folder = tmp_path / "index"
        ran = ragpack("index", "--corpus", corpus, "--index", folder, "--json", *METHODS, *more)
        assert ran.code == code, ran.err
        return ran.json

    return run


@pytest.fixture
def index(tmp_path):
    """The index as it lies on disk."""
    return lambda: FaissRetriever.load(tmp_path / "index")


@pytest.fixture
def stored(tmp_path):
    """Which of the passages have their vector in the store."""

    def look(*passages: Passage, namespace: str = "default") -> list[bool]:
        method = DenseEncoder(load_encoder("all-minilm-l6-v2"))
        store = open_store(f"lmdb://{tmp_path / 'store'}")
        keys = make_keys(namespace, method.kind, method.fingerprint, passages)
        held = store.contains_many([str(key) for key in keys])
        store.close()
        return held

    return look


def about(name: str) -> Passage:
    return Passage(name, f"All about {name}.", name)


def test_long_documents_become_passages(job, index, ragpack, tmp_path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    dials = [f"Section {n} says that dial {n} must read {n * 7}." for n in range(60)]
    body = "\n\n".join([*dials[:30], "Otters sleep in the harbour office.", *dials[30:]])
    (folder / "manual.md").write_text(f"# The manual\n\n{body}\n")
    (folder / "note.txt").write_text("The lamp is red.")
    done = job(folder)
    assert done["passages"] >= 4
    found = index().search("Where do the otters sleep?", 1)[0]
    assert found.id.startswith("manual.md#")
    assert found.title == "The manual"
    place = found.metadata["part_of"]
    text = (folder / "manual.md").read_text()
    assert found.text == text[place["start"] : place["end"]]
    assert "harbour office" in found.text
    assert index().get("note.txt") == Passage("note.txt", "The lamp is red.")
    packed = ragpack("pack", "-q", "dial 41", "--index", tmp_path / "index", "-k", 2, "--json")
    assert packed.json["report"]["hits"] == 2


def test_a_document_that_became_shorter_leaves_no_rest(job, index, tmp_path) -> None:
    path = tmp_path / "manual.txt"
    path.write_text("\n".join(f"Dial {n} must read {n * 7}." for n in range(100)))
    write_rows(tmp_path / "other.jsonl", [*rows("fox"), {"id": "manual.txt#99", "text": "Mine."}])
    job(tmp_path / "other.jsonl")
    many = job(path, "--split", 32)["added"]
    path.write_text("\n".join(f"Dial {n} must read {n * 7}." for n in range(50)))
    done = job(path, "--split", 32)
    assert 0 < done["passages"] == many - done["removed"]
    whole = job(path, "--split", "none")
    assert whole["removed"] == done["passages"]
    assert sorted(index().ids()) == ["fox", "manual.txt", "manual.txt#99"]


def test_what_failed_can_be_mended_and_indexed_alone(job, index, tmp_path) -> None:
    corpus, letters = tmp_path / "corpus.jsonl", tmp_path / "index" / "failed.jsonl"
    bad = [{"id": "sea", "text": 5}, {"id": "fox", "text": "Another fox."}]
    write_rows(corpus, [*rows("fox"), *bad])
    with corpus.open("a") as lines:
        lines.write("{broken\n")
    first = job(corpus, code=1)
    assert (first["failures"], first["failed_file"]) == (3, str(letters))
    failed = [json.loads(line) for line in letters.read_text().splitlines()]
    assert [each.pop("ragpack_failed")["line"] for each in failed] == [2, 3, 4]
    assert failed[:2] == bad
    assert failed[2] == {"raw": "{broken"}

    mended = [{"id": "sea", "text": "The sea."}, {"id": "fox2", "text": "Another fox."}]
    marked = json.loads(letters.read_text().splitlines()[0])["ragpack_failed"]
    write_rows(letters, [each | {"ragpack_failed": marked} for each in mended])
    second = job(letters)
    assert (second["added"], second["failures"], second["failed_file"]) == (2, 0, None)
    assert not letters.exists()
    assert index().get("fox2") == Passage("fox2", "Another fox.")


def test_a_failed_file_of_ones_own_name(job, tmp_path) -> None:
    corpus = write_rows(tmp_path / "c.jsonl", [*rows("fox"), {"id": "x"}])
    elsewhere = tmp_path / "lost" / "letters.jsonl"
    assert job(corpus, "--failed", elsewhere, code=1)["failed_file"] == str(elsewhere)
    assert json.loads(elsewhere.read_text())["id"] == "x"


def test_prune_removes_what_the_corpus_no_longer_has(job, index, stored, tmp_path) -> None:
    corpus = write_rows(tmp_path / "c.jsonl", rows("fox", "sea", "bee"))
    job(corpus)
    job(corpus, "--namespace", "neighbour")
    changed = [*rows("fox"), {"id": "sea", "text": "Rewritten."}]
    kept = job(write_rows(corpus, changed))
    assert (kept["removed"], kept["pruned"]) == (0, {})
    assert sorted(index().ids()) == ["bee", "fox", "sea"]
    assert index().get("sea").text == "Rewritten."
    write_rows(corpus, [*rows("fox"), {"id": "sea", "text": "Rewritten again."}])
    done = job(corpus, "--prune")
    assert done["removed"] == 1
    assert done["pruned"] == {"dense": 2, "recomp-mini": 2}
    assert sorted(index().ids()) == ["fox", "sea"]
    assert stored(about("fox"), about("bee"), Passage("sea", "Rewritten.")) == [True, False, False]
    assert stored(about("bee"), namespace="neighbour") == [True]
    again = job(corpus, "--prune")
    assert (again["removed"], again["computed"]) == (0, {})


def test_prune_keeps_a_text_that_another_id_still_has(job, stored, tmp_path) -> None:
    twins = [{"id": "a", "text": "The same."}, {"id": "b", "text": "The same."}]
    corpus = write_rows(tmp_path / "c.jsonl", twins)
    job(corpus)
    done = job(write_rows(corpus, twins[1:]), "--prune")
    assert (done["removed"], done["pruned"].get("dense", 0)) == (1, 0)
    assert stored(Passage("b", "The same.")) == [True]


def test_a_dead_letter_file_prunes_nothing(job, ragpack, tmp_path) -> None:
    job(write_rows(tmp_path / "c.jsonl", [*rows("fox"), {"id": "x"}]), code=1)
    folder = tmp_path / "index"
    ran = ragpack("index", "--corpus", folder / "failed.jsonl", "--index", folder, "--prune")
    assert ran.code == 2
    assert "only a part of a corpus" in " ".join(ran.err.split())


def test_nothing_is_pruned_while_records_cannot_be_read(job, index, tmp_path) -> None:
    corpus = write_rows(tmp_path / "c.jsonl", rows("fox", "sea"))
    job(corpus)
    corpus.write_text(json.dumps(rows("fox")[0]) + '\n{"id": "sea", "te')
    done = job(corpus, "--prune", code=1)
    assert done["removed"] == 0
    assert sorted(index().ids()) == ["fox", "sea"]


def test_equal_texts_are_stored_once_and_every_id_resolves(job, index, tmp_path) -> None:
    twins = [{"id": name, "text": "The same.", "page": name} for name in "abc"]
    done = job(write_rows(tmp_path / "c.jsonl", twins))
    assert (done["passages"], done["added"]) == (3, 1)
    assert done["computed"] == {"dense": 1, "recomp-mini": 1}
    assert len(index()) == 1
    assert [index().get(name).metadata for name in "abc"] == [{"page": name} for name in "abc"]


def test_a_dry_run_estimates_and_writes_nothing(ragpack, tmp_path) -> None:
    words = ["The lamp is red.", "Nobody saw the second ship.", "Salt, tin and rope."]
    made = [
        {"id": str(n), "text": " ".join(words[: n % 3 + 1] * (n % 7 + 1)) + f" {n}"}
        for n in range(90)
    ]
    corpus = write_rows(tmp_path / "c.jsonl", [*made, made[0], {"id": "x"}])
    before = sorted(tmp_path.rglob("*"))
    command = ["index", "--corpus", corpus, "--index", tmp_path / "index", *METHODS]
    dry = ragpack(*command, "--dry-run", "--sample", 24, "--gb-price", 3, "--json")
    assert dry.code == 0, dry.err
    assert sorted(tmp_path.rglob("*")) == before
    assert (dry.json["records"], dry.json["failures"], dry.json["passages"]) == (92, 1, 90)
    estimated = {row["method"]: row for row in dry.json["methods"]}
    assert ragpack(*command).code == 1
    store = open_store(f"lmdb://{tmp_path / 'store'}")
    held = store.stats().bytes
    store.close()
    assert sum(row["store_bytes"] for row in estimated.values()) == pytest.approx(held, rel=0.05)
    for row in estimated.values():
        assert row["seconds"] > 0
        assert row["redis_bytes"] > row["store_bytes"]
        assert row["redis_dollars_per_month"] == pytest.approx(row["redis_bytes"] / 1e9 * 3)


def test_a_dry_run_of_nothing_is_refused(ragpack, tmp_path) -> None:
    ran = ragpack("index", "--corpus", write_rows(tmp_path / "c.jsonl", [{"id": "x"}]), "--dry-run")
    assert (ran.code, ran.out) == (1, "")
    assert "no usable passage" in " ".join(ran.err.split())


def test_a_dry_run_shows_a_table(ragpack, tmp_path) -> None:
    corpus = write_rows(tmp_path / "c.jsonl", rows("fox", "sea"))
    ran = ragpack("index", "--corpus", corpus, "--dry-run", *METHODS)
    assert (ran.code, ran.out) == (0, "")
    assert "2 different passages" in ran.err
    assert "recomp-mini" in ran.err
    assert "10 $ per GB and month" in ran.err


def test_a_dry_run_weighs_kv_in_every_codec(ragpack, tmp_path) -> None:
    corpus = write_rows(tmp_path / "c.jsonl", rows("fox", "sea", "bee"))
    ran = ragpack("index", "--corpus", corpus, "--dry-run", "--methods", "kv-reuse", "--json")
    kv = {row["codec"]: row for row in ran.json["methods"] if row["method"] == "kv-reuse"}
    assert set(kv) == {"bf16", "i8"}
    assert kv["i8"]["store_bytes"] < 0.6 * kv["bf16"]["store_bytes"]
    assert kv["i8"]["seconds"] is None


def test_without_a_terminal_progress_is_lines(ragpack, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    corpus = write_rows(tmp_path / "c.jsonl", rows("fox", "sea", "bee"))
    ran = ragpack("index", "--corpus", corpus, "--index", tmp_path / "index", *METHODS)
    lines = [line for line in ran.err.splitlines() if line.startswith("indexing: ")]
    stages = [line.split(", ")[1] for line in lines]
    assert stages[:3] == ["opening the index", "reading", "embedding"]
    assert "passages" not in "".join(lines[:3])  # none is done yet
    assert stages[-1] == METHODS[-1]
    assert "3 passages done" in lines[-1]
    assert "tokens/s, 0% from the store" in lines[-1]
    assert "bytes stored" in lines[-1] or "kB stored" in lines[-1]


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--split", "some"], 2, "a number of tokens, auto or none"),
        (["--split", "7"], 2, "at least 8 tokens"),
        (["--overlap", "200"], 2, "overlap must be"),
        (["--text-field", "body"], 1, '"body" of'),
    ],
)
def test_wrong_settings_are_explained(ragpack, tmp_path, more, code, said) -> None:
    corpus = write_rows(tmp_path / "c.jsonl", rows("fox"))
    ran = ragpack("index", "--corpus", corpus, "--index", tmp_path / "index", *more)
    assert (ran.code, ran.out) == (code, "")
    assert said in " ".join(ran.err.split())


def test_a_missing_reader_names_its_command(ragpack, tmp_path, monkeypatch) -> None:
    (tmp_path / "c.parquet").write_bytes(b"PAR1")
    for name in [name for name in sys.modules if name.split(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ran = ragpack("index", "--corpus", tmp_path / "c.parquet", "--index", tmp_path / "index")
    assert ran.code == 1
    assert "pip install 'ragpack-middleware[corpus]'" in " ".join(ran.err.split())


def test_the_example_of_the_docs_runs(tmp_path, monkeypatch, capsys) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "indexing.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "note.md").write_text("# Note\n\nThe lamp is red.")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(page), "exec"), {})
    assert "'passages': 1, 'added': 1" in capsys.readouterr().out
