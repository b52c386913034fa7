"""The FAISS retriever: exact search, growing, saved whole, nothing foreign or broken loaded."""

import json
import resource
import subprocess
import sys
from dataclasses import replace

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragpack.errors import ConfigError, InputError, RetrievalError
from ragpack.models import load_encoder
from ragpack.models.dense import DenseEncoder
from ragpack.retrievers.faiss import FaissRetriever
from ragpack.types import Fingerprint, Passage

TEXTS = st.text(st.characters(codec=None), max_size=30)


class HashEncoder:
    """Sixteen numbers drawn from a text's own characters; remembers what it was asked."""

    dim = 16

    def __init__(self, name: str = "hash") -> None:
        self.fingerprint = Fingerprint("test", model=name)
        self.asked: list[str] = []

    def encode(self, texts):
        self.asked += texts
        seeds = [list(text.encode()) or [0] for text in texts]
        rows = [np.random.default_rng(seed).normal(size=self.dim) for seed in seeds]
        return np.array(rows, np.float32).reshape(-1, self.dim)


def numbered(count: int, start: int = 0) -> list[Passage]:
    return [
        Passage(f"p{i}", f"text number {i}", title=f"T{i}") for i in range(start, start + count)
    ]


def filled(count: int = 20, factory: str = "Flat") -> FaissRetriever:
    retriever = FaissRetriever(HashEncoder(), factory=factory)
    retriever.add(numbered(count))
    return retriever


def ids(passages) -> list[str]:
    return [passage.id for passage in passages]


def test_finds_by_meaning() -> None:
    retriever = FaissRetriever()
    retriever.add(
        [
            Passage("cat", "Cats sleep most of the day."),
            Passage("tax", "The council raised the property tax."),
            Passage("sea", "It lives on herring.", title="Seal"),
        ]
    )
    first, second = retriever.search_many(["How long do cats rest?", "what do seals eat"], 2)
    assert (first[0].id, second[0].id) == ("cat", "sea")
    assert 1 > first[0].score > first[1].score


def test_search_is_exact_and_scores_are_cosines() -> None:
    retriever = filled(200)
    vectors = HashEncoder().encode([passage.full_text for passage in numbered(200)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = HashEncoder().encode(["any question"])[0]
    cosines = vectors @ asked / np.linalg.norm(asked)
    found = retriever.search("any question", 7)
    assert ids(found) == [f"p{i}" for i in np.argsort(-cosines)[:7]]
    np.testing.assert_allclose([p.score for p in found], np.sort(cosines)[::-1][:7], rtol=1e-5)


def test_never_embeds_a_text_twice() -> None:
    retriever = FaissRetriever(HashEncoder())
    assert retriever.add(numbered(3)) == 3
    assert retriever.add(numbered(5)) == 2
    assert retriever.encoder.asked == [p.full_text for p in numbered(5)]
    assert len(retriever) == retriever.index.ntotal == 5


def test_a_text_under_two_ids_is_stored_once_and_both_resolve(tmp_path) -> None:
    twin = Passage("twin", "text number 1", title="T1", metadata={"page": 7})
    retriever = FaissRetriever(HashEncoder())
    assert retriever.add([*numbered(2), twin]) == 2
    retriever.save(tmp_path)
    for index in (retriever, FaissRetriever.load(tmp_path, HashEncoder())):
        assert len(index) == index.index.ntotal == 2
        assert sorted(ids(index.search("text", 5))) == ["p0", "p1"]
        assert index.get("twin") == twin
        assert index.get("p1") == numbered(2)[1]
        assert index.get("p9") is None


def test_an_id_with_two_texts_at_once_is_refused_and_nothing_is_added() -> None:
    retriever = filled(2)
    with pytest.raises(InputError, match=r"'p9'.*'one text' and 'other text'"):
        retriever.add(
            [Passage("p8", "new"), Passage("p9", "one text"), Passage("p9", "other text")]
        )
    assert len(retriever) == retriever.index.ntotal == 2
    assert retriever.get("p8") is None


@pytest.mark.parametrize("factory", ["Flat", "HNSW32", "SQ8", "IVF4,SQ8", "PCA8,SQfp16"])
def test_a_changed_text_replaces_the_old_one(tmp_path, factory: str) -> None:
    retriever = filled(200, factory)
    changed = [Passage(f"p{n}", f"rewritten {n}") for n in range(0, 200, 4)]
    assert retriever.add(changed) == 50
    assert [p.text for p in retriever.unnamed()] == [f"text number {n}" for n in range(0, 200, 4)]
    retriever.save(tmp_path)
    for index in (retriever, FaissRetriever.load(tmp_path, HashEncoder())):
        assert len(index) == index.index.ntotal == 200
        assert list(index.unnamed()) == []
        assert index.search("rewritten 8", 3)[0].id == "p8"
        assert index.search("T9\ntext number 9", 3)[0].id == "p9"
        assert "text number 8" not in {p.text for p in index.search("T8\ntext number 8", 20)}


def test_changed_metadata_replaces_the_old(tmp_path) -> None:
    retriever = filled(3)
    moved = Passage("p1", "text number 1", title="T1", metadata={"page": 2})
    assert retriever.add([moved]) == 0
    retriever.save(tmp_path)
    again = FaissRetriever.load(tmp_path, HashEncoder())
    assert again.get("p1") == moved
    assert again.search("T1\ntext number 1", 1)[0].metadata == {"page": 2}


@pytest.mark.parametrize("count", [1, 60, 99, 100])
def test_what_is_removed_is_not_found(tmp_path, count: int) -> None:
    retriever = filled(100)
    gone = [f"p{n}" for n in range(count)]
    assert retriever.remove([*gone, "unknown"]) == count
    assert retriever.remove(gone) == 0
    left = sorted(f"p{n}" for n in range(count, 100))
    assert len(retriever) == len(left)
    assert sorted(retriever.ids()) == sorted(ids(retriever.search("text number 5", 100))) == left
    assert len(retriever.search("text number 5", 10)) == min(10, len(left))
    retriever.save(tmp_path)
    again = FaissRetriever.load(tmp_path, HashEncoder())
    assert again.index.ntotal == len(left)
    assert again.search("text number 5", 7) == retriever.search("text number 5", 7)
    assert again.add(numbered(100)) == count


def test_a_text_stays_as_long_as_one_id_has_it(tmp_path) -> None:
    twin = Passage("twin", "text number 1", title="T1", metadata={"page": 7})
    retriever = filled(3)
    retriever.add([twin])
    retriever.remove(["p1"])
    assert list(retriever.unnamed()) == []
    assert twin in [replace(p, score=None) for p in retriever.search("text number 1", 3)]
    retriever.save(tmp_path)
    again = FaissRetriever.load(tmp_path, HashEncoder())
    assert (len(again), again.get("twin"), again.get("p1")) == (3, twin, None)
    again.remove(["twin"])
    assert [p.text for p in again.unnamed()] == ["text number 1"]
    assert again.add([twin]) == 0  # its vector is still there
    assert len(again) == 3


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["", "x", "y", "z"]))))
def test_any_history_ends_in_what_was_said_last(history) -> None:
    retriever, expected = FaissRetriever(HashEncoder()), {}
    for passage_id, text in history:
        if text:
            retriever.add([Passage(passage_id, text)])
            expected[passage_id] = text
        else:
            assert retriever.remove([passage_id]) == (passage_id in expected)
            expected.pop(passage_id, None)
    assert {i: retriever.get(i).text for i in retriever.ids()} == expected
    found = retriever.search("q", 9)
    assert sorted(p.text for p in found) == sorted(set(expected.values()))
    assert all(expected[p.id] == p.text for p in found)
    assert len(retriever) == len(set(expected.values()))


def test_given_vectors_are_taken_and_normalised() -> None:
    passages = numbered(4)
    encoder = HashEncoder()
    vectors = np.stack([a.vectors[0] for a in DenseEncoder(encoder).compress(passages, None)])
    retriever = FaissRetriever(encoder)
    encoder.asked.clear()
    assert retriever.add(passages, vectors * 9) == 4
    assert encoder.asked == []
    assert ids(retriever.search("q", 4)) == ids(filled(4).search("q", 4))
    assert retriever.search("q", 1)[0].score == pytest.approx(filled(4).search("q", 1)[0].score)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [(np.zeros((2, 15)), "shape"), (np.zeros((1, 16)), "shape"), (np.full((2, 16), np.nan), "NaN")],
)
def test_wrong_vectors_are_refused(vectors, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FaissRetriever(HashEncoder()).add(numbered(2), vectors)


def test_metadata_that_is_not_json_is_refused() -> None:
    with pytest.raises(InputError, match="metadata of passage 'p1'"):
        FaissRetriever(HashEncoder()).add([Passage("p1", "a", metadata={"when": object()})])


def test_small_and_empty_indexes() -> None:
    assert len(filled(3).search("q", 10)) == 3
    empty = FaissRetriever(HashEncoder())
    assert empty.add([]) == 0
    assert empty.search("q", 5) == []
    assert filled(3).search_many([], 5) == []


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(k: int) -> None:
    with pytest.raises(InputError, match="k must be at least 1"):
        filled(3).search("q", k)


@pytest.mark.parametrize("factory", ["HNSW32", "SQ8", "IVF4,Flat", "PCA8,SQfp16"])
def test_other_factories_train_grow_and_reload(tmp_path, factory: str) -> None:
    retriever = filled(200, factory)
    assert retriever.search("text number 3", 3)
    retriever.add(numbered(10, start=200))
    retriever.save(tmp_path)
    again = FaissRetriever.load(tmp_path, HashEncoder())
    assert again.factory == factory
    assert again.index.ntotal == 210
    assert again.search("text number 3", 3) == retriever.search("text number 3", 3)


def test_pca_of_vectors_that_share_a_direction_keeps_their_cosines(tmp_path) -> None:
    """Moved to their mean, as FAISS does, the same vectors come back in another order."""
    vectors = np.random.default_rng(0).normal(1, 1, size=(300, 16)).astype(np.float32)
    exact, reduced = (FaissRetriever(HashEncoder(), factory=f) for f in ("Flat", "PCA16,Flat"))
    for retriever in (exact, reduced):
        retriever.add(numbered(300), vectors)
    reduced.save(tmp_path)
    again = FaissRetriever.load(tmp_path, HashEncoder())
    asked = vectors[:20] + 0.1
    for right, found in zip(*(r.search_vectors(asked, 10) for r in (exact, again)), strict=True):
        assert ids(found) == ids(right)
        assert [p.score for p in found] == pytest.approx([p.score for p in right], abs=1e-5)


@pytest.mark.parametrize(
    ("factory", "settings"),
    [("IVF4,Flat", "nprobe=3"), ("HNSW32", "efSearch=77"), ("PCA8,IVF4,SQ8", "nprobe=3")],
)
def test_search_settings_are_kept_when_saved(tmp_path, factory: str, settings: str) -> None:
    retriever = filled(200, factory)
    retriever.tune(settings)
    retriever.save(tmp_path)
    index = FaissRetriever.load(tmp_path, HashEncoder()).index
    inverted = faiss.try_extract_index_ivf(index)
    value = index.hnsw.efSearch if inverted is None else inverted.nprobe
    assert settings.endswith(f"={value}")


def test_unknown_search_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be searched with 'nprobe=3'"):
        filled().tune("nprobe=3")


def test_training_takes_a_sample_and_does_not_wait_for_ever(monkeypatch) -> None:
    from ragpack.retrievers import faiss_factory

    monkeypatch.setattr(faiss_factory, "_SAMPLE", 50)
    monkeypatch.setattr(faiss_factory, "_PER_LIST", 10)
    rows: list[int] = []
    retriever = FaissRetriever(HashEncoder(), factory="IVF4,Flat")
    train = retriever.index.train
    monkeypatch.setattr(retriever.index, "train", lambda x: rows.append(len(x)) or train(x))
    retriever.add(numbered(90))
    assert not retriever.index.is_trained
    retriever.add(numbered(30, start=90))
    assert (rows, retriever.index.ntotal) == ([50], 120)
    again = FaissRetriever(HashEncoder(), factory="IVF4,Flat")
    again.add(numbered(120))
    assert again.search("q", 9) == retriever.search("q", 9)


def test_too_few_passages_to_train_is_said() -> None:
    with pytest.raises(RetrievalError, match="IVF64"):
        filled(5, "IVF64,Flat").search("q", 1)


def test_unknown_factory_is_refused() -> None:
    with pytest.raises(ConfigError, match="Falt"):
        FaissRetriever(HashEncoder(), factory="Falt")


@given(st.lists(st.builds(Passage, id=TEXTS, text=TEXTS, title=TEXTS), unique_by=lambda p: p.id))
def test_any_passage_survives_saving(tmp_path_factory, passages) -> None:
    folder = tmp_path_factory.mktemp("index")
    retriever = FaissRetriever(HashEncoder())
    retriever.add(passages)
    retriever.save(folder)
    again = FaissRetriever.load(folder, HashEncoder())
    assert [again.get(p.id) for p in passages] == list(passages)
    assert again.search("\ud800", 3) == retriever.search("\ud800", 3)


def test_reload_in_another_process_with_its_own_encoder(tmp_path) -> None:
    retriever = FaissRetriever()
    retriever.add([Passage("a", "Cats sleep."), Passage("b", "Taxes rise.")])
    retriever.save(tmp_path)
    code = (
        "import sys; from ragpack.retrievers.faiss import FaissRetriever;"
        "print(FaissRetriever.load(sys.argv[1]).search('sleeping cats', 1)[0].id)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "a\n"


def test_saving_again_replaces_the_index_and_leaves_no_rest(tmp_path) -> None:
    retriever = filled(3)
    retriever.save(tmp_path)
    retriever.add(numbered(9))
    retriever.save(tmp_path)
    assert len(FaissRetriever.load(tmp_path, HashEncoder())) == 9
    assert len(list(tmp_path.iterdir())) == 3


def test_an_index_of_another_encoder_is_refused(tmp_path) -> None:
    filled().save(tmp_path)
    with pytest.raises(RetrievalError, match=r"made by the encoder 'hash'.*not by 'other'"):
        FaissRetriever.load(tmp_path, HashEncoder("other"))


def test_no_index_is_said(tmp_path) -> None:
    with pytest.raises(RetrievalError, match="no index in"):
        FaissRetriever.load(tmp_path / "nowhere", HashEncoder())


@pytest.mark.parametrize("pattern", ["index-*.faiss", "passages-*.jsonl"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_refused(tmp_path, pattern: str, damage: str) -> None:
    filled().save(tmp_path)
    (path,) = tmp_path.glob(pattern)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[:-1])
    with pytest.raises(RetrievalError, match="damaged"):
        FaissRetriever.load(tmp_path, HashEncoder())


def _edit(manifest: dict, **changes) -> str:
    return json.dumps(manifest | changes)


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: "",
        lambda m: "[]",
        lambda m: "{}",
        lambda m: _edit(m, format="ragpack-index/9"),
        lambda m: _edit(m, count=19),
        lambda m: _edit(m, surprise=1),
        lambda m: _edit(m, files={}),
        lambda m: _edit(m, files={"index.faiss": "../../etc/passwd", "passages.jsonl": "x"}),
        lambda m: _edit(m, files={"index.faiss": 5}),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, edit) -> None:
    filled().save(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(edit(json.loads(path.read_text())))
    with pytest.raises(RetrievalError, match="damaged"):
        FaissRetriever.load(tmp_path, HashEncoder())


def test_files_that_do_not_belong_together_are_refused(tmp_path) -> None:
    filled(20).save(tmp_path / "a")
    filled(21).save(tmp_path / "b")
    a, b = (json.loads((tmp_path / n / "manifest.json").read_text()) for n in "ab")
    (other,) = (tmp_path / "b").glob("index-*.faiss")
    other.rename(tmp_path / "a" / other.name)
    mixed = a["files"] | {"index.faiss": b["files"]["index.faiss"]}
    (tmp_path / "a" / "manifest.json").write_text(_edit(a, files=mixed))
    with pytest.raises(RetrievalError, match="do not match"):
        FaissRetriever.load(tmp_path / "a", HashEncoder())


def test_a_folder_that_cannot_be_written_is_said(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RetrievalError, match="cannot be saved in"):
        filled().save(tmp_path / "file" / "index")


def test_a_full_disk_leaves_the_old_index(tmp_path) -> None:
    filled(5).save(tmp_path)
    many = filled(5000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(RetrievalError, match="cannot be saved"):
            many.save(tmp_path)
        with pytest.raises(RetrievalError, match="cannot hold the index's passages"):
            filled(5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(FaissRetriever.load(tmp_path, HashEncoder())) == 5
    assert len(list(tmp_path.iterdir())) == 3


def test_dense_encoder_gives_one_vector_per_passage() -> None:
    encoder = load_encoder("all-minilm-l6-v2")
    method = DenseEncoder(encoder)
    passages = [Passage("a", "Cats sleep.", title="Cat"), Passage("b", "")]
    artifacts = method.compress(passages, None)
    expected = encoder.encode(["Cat\nCats sleep.", ""])
    assert [a.vectors.shape for a in artifacts] == [(1, 384)] * 2
    np.testing.assert_allclose([a.vectors[0] for a in artifacts], expected, atol=1e-6)
    assert method.fingerprint.digest != DenseEncoder(HashEncoder()).fingerprint.digest
    assert method.compress([], None) == []
