"""Indexing where the store is full, or where another job works on the same one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from ragpack.cache_store import lmdb_environment
from ragpack.config import namespace
from ragpack.registry import open_store
from ragpack.retrievers.faiss import FaissRetriever

COUNT = 1000


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A corpus whose vectors take about 2 MB."""
    path = tmp_path / "many.jsonl"
    lines = (json.dumps({"id": str(n), "text": f"Item {n} is in hall {n}."}) for n in range(COUNT))
    path.write_text("\n".join(lines))
    return path


def test_a_full_lmdb_is_said_and_the_next_run_goes_on(
    ragpack, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["index", "--corpus", many, "--index", tmp_path / "index", "--methods", "", "--json"]
    with monkeypatch.context() as patch:
        patch.setattr(lmdb_environment, "_MAP_BYTES", 2 << 20)
        full = ragpack(*command)
    assert (full.code, full.out) == (1, "")
    said = " ".join(full.err.split())
    assert "MAP_FULL" in said
    assert "goes on from here" in said
    assert not (tmp_path / "index" / "manifest.json").exists()
    done = ragpack(*command)
    assert done.code == 0
    assert done.json["hits"]["dense"] > 0
    assert done.json["hits"]["dense"] + done.json["computed"]["dense"] == COUNT


def test_a_full_redis_is_said_and_the_next_run_goes_on(
    ragpack, many: Path, tmp_path: Path, redis_server
) -> None:
    command = ["index", "--corpus", many, "--index", tmp_path / "index", "--methods", "", "--json"]
    command += ["--store", redis_server.url]
    with redis.Redis(port=redis_server.port) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", client.info()["used_memory"] + 1_200_000)
        full = ragpack(*command)
        assert (full.code, full.out) == (1, "")
        assert "it is full: raise maxmemory" in " ".join(full.err.split())
        client.config_set("maxmemory", 0)
    done = ragpack(*command)
    assert done.code == 0
    assert done.json["hits"]["dense"] > 0
    assert done.json["hits"]["dense"] + done.json["computed"]["dense"] == COUNT


def test_jobs_at_once_all_finish(many: Path, tmp_path: Path) -> None:
    """On one store: two with one index together, and one with an index of its own."""
    folders = ["shared", "shared", "own"]
    url = f"lmdb://{tmp_path / 'store'}"
    command = [sys.executable, "-m", "ragpack.cli", "index", "--corpus", str(many)]
    command += ["--methods", "", "--json", "--index"]
    environment = os.environ | {"RAGPACK_STORE": url}
    jobs = [
        subprocess.Popen(
            [*command, str(tmp_path / folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for folder in folders
    ]
    try:
        ended = [job.communicate(timeout=900) for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    assert [job.returncode for job in jobs] == [0, 0, 0], ended
    for out, _ in ended:
        done = json.loads(out)
        assert done["hits"].get("dense", 0) + done["computed"].get("dense", 0) == COUNT
    store = open_store(url)
    assert len(set(store.scan(namespace()))) == store.stats().entries == COUNT
    store.close()
    for folder in set(folders):
        assert len(FaissRetriever.load(tmp_path / folder)) == COUNT
