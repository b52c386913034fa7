"""A damaged file of the embedded store: said in words, and never the end of the process."""

import multiprocessing
import os
import random
import re
import shutil

import pytest

from ragpack.errors import CacheUnavailable
from ragpack.keys import CacheKey
from ragpack.registry import open_store

FORK = multiprocessing.get_context("fork")
KEYS = [str(CacheKey("tenant", "text", "fingerprint", str(number))) for number in range(200)]
VALUES = [random.Random(key).randbytes(3000) for key in KEYS]
META_BYTES = 8192  # what says where everything is


@pytest.fixture
def folder(tmp_path):
    store = open_store(f"lmdb://{tmp_path / 'store'}")
    store.put_many(dict(zip(KEYS, VALUES, strict=True)))
    store.close()
    return tmp_path / "store"


def use(folder):
    """Read and write as ever; values come back whole, zeroed or not at all."""
    store = open_store(f"lmdb://{folder}")
    for value, wanted in zip(store.get_many(KEYS), VALUES, strict=True):
        assert value is None or len(value) == len(wanted)
    store.put_many({KEYS[0]: b"new"})
    store.drop("tenant")
    store.close()


def use_elsewhere(folder, said):
    try:
        use(folder)
    except CacheUnavailable as error:
        said.send(str(error))
    else:
        said.send("")


def said_by_another_process(folder):
    here, there = FORK.Pipe()
    child = FORK.Process(target=use_elsewhere, args=(folder, there))
    child.start()
    there.close()
    try:
        return here.recv()  # EOFError: it died without a word
    finally:
        child.join()


def test_the_message_says_that_the_folder_may_be_deleted(folder):
    damaged = folder / "data.mdb"
    size = damaged.stat().st_size - META_BYTES
    damaged.write_bytes(damaged.read_bytes()[:META_BYTES] + random.Random(0).randbytes(size))
    with pytest.raises(CacheUnavailable, match=re.escape(f"delete it, rm -r {folder}: a cache")):
        use(folder)
    shutil.rmtree(folder)
    use(folder)


@pytest.mark.parametrize("seed", range(8))
def test_a_file_that_was_cut_off_does_not_kill_the_process(folder, seed):
    damaged = folder / "data.mdb"
    os.truncate(damaged, random.Random(seed).randrange(META_BYTES, damaged.stat().st_size))
    message = said_by_another_process(folder)
    assert not message or "the file is damaged" in message
