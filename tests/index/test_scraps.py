"""What a killed job leaves half made goes with the next one."""

import json

from ragpack.cache_store.memory import MemoryStore
from ragpack.corpus import Corpus
from ragpack.index import IndexJob, IndexPlan


def test_the_next_job_removes_half_made_folders(tmp_path) -> None:
    path, folder = tmp_path / "corpus.jsonl", tmp_path / "index"
    path.write_text(json.dumps({"id": "a", "text": "Bees make honey."}))
    for scrap in (".new-x1", ".staged-y2"):
        (folder / scrap).mkdir(parents=True)
        (folder / scrap / "half.faiss").write_bytes(b"half")
    IndexJob(IndexPlan(corpus=Corpus(path), folder=folder, methods=())).run(MemoryStore())
    assert [each.name for each in folder.iterdir() if each.is_dir()] == []
    assert (folder / "manifest.json").exists()
