"""The embedded store's own ways: eviction, several processes, kills, forks, bad folders."""

import multiprocessing
import os
import resource
import signal
import threading
import time
from itertools import count

import pytest

from ragpack.errors import CacheUnavailable
from ragpack.keys import CacheKey
from ragpack.registry import open_store

MIB = 1 << 20
FORK = multiprocessing.get_context("fork")


def key(number):
    return str(CacheKey("tenant", "text", "fingerprint", f"passage {number}"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(folder):
    opened = open_store(f"lmdb://{folder}")
    yield opened
    opened.close()


def in_child(work, *arguments):
    """What ``work`` returns, or the error it raises, in a forked process."""
    here, there = FORK.Pipe()
    child = FORK.Process(target=answer, args=(there, work, *arguments))
    child.start()
    assert here.poll(300), "the child hangs"
    result = here.recv()
    child.join()
    if isinstance(result, Exception):
        raise result
    return result


def answer(connection, work, *arguments):
    try:
        connection.send(work(*arguments))
    except Exception as error:
        connection.send(error)


def test_a_store_outlives_its_process(folder):
    first = open_store(f"lmdb://{folder}")
    first.put_many({key(1): b"small", key(2): bytes(3 * MIB)})
    first.close()
    second = open_store(f"lmdb://{folder}")
    assert second.get_many([key(1), key(2)]) == [b"small", bytes(3 * MIB)]
    second.close()


def test_stores_on_one_folder_share_it(folder, tmp_path):
    first, second = open_store(f"lmdb://{folder}"), open_store(f"lmdb://{tmp_path}/./store")
    first.put_many({key(1): b"seen"})
    assert second.get_many([key(1)]) == [b"seen"]
    first.close()
    assert second.get_many([key(1)]) == [b"seen"]
    second.close()
    with pytest.raises(CacheUnavailable, match="closed"):
        second.get_many([key(1)])


def test_entries_not_used_for_the_longest_time_go(folder):
    store = open_store(f"lmdb://{folder}?max_bytes=10MiB")
    for number in range(4):
        store.put_many({key(number): bytes(2 * MIB)})
    store.get_many([key(0)])
    store.put_many({key(4): bytes(4 * MIB)})
    assert store.contains_many([key(n) for n in range(5)]) == [True, False, True, True, True]
    stats = store.stats()
    assert (stats.entries, stats.bytes, stats.evictions) == (4, 10 * MIB, 1)
    store.close()


def test_uses_are_remembered_over_a_restart(folder):
    store = open_store(f"lmdb://{folder}?max_bytes=300")
    for number in range(3):
        store.put_many({key(number): bytes(100)})
    store.get_many([key(0)])
    store.close()
    store = open_store(f"lmdb://{folder}?max_bytes=300")
    store.put_many({key(3): bytes(100)})
    assert store.contains_many([key(n) for n in range(4)]) == [True, False, True, True]
    store.close()


def test_uses_are_written_down_from_time_to_time(folder):
    reader = open_store(f"lmdb://{folder}?max_bytes=2kB")
    reader.put_many({key(number): b"x" for number in range(2000)})
    reader.get_many([key(number) for number in range(1100)])
    present = in_child(evict_some, folder)
    assert (sum(present[:1100]), sum(present[1100:])) == (1100, 800)
    reader.close()


def evict_some(folder):
    store = open_store(f"lmdb://{folder}?max_bytes=2kB")
    store.put_many({key("new"): bytes(100)})
    return store.contains_many([key(number) for number in range(2000)])


def test_the_file_does_not_grow_without_end(folder):
    store = open_store(f"lmdb://{folder}?max_bytes=20MiB")
    for number in range(60):
        store.put_many({key(number): bytes(2 * MIB), key(-number): bytes(10_000 + number)})
    store.close()
    assert (folder / "data.mdb").stat().st_size < 40 * MIB


def test_entries_whose_time_is_over_leave_the_disk(store):
    store.put_many({key(1): bytes(2 * MIB)}, ttl=0.05)
    time.sleep(0.1)
    store.put_many({key(2): b"x"})
    assert (store.stats().entries, store.stats().bytes) == (1, 1)


def test_a_value_larger_than_the_store_changes_nothing(folder):
    store = open_store(f"lmdb://{folder}?max_bytes=1MB")
    store.put_many({key(1): b"kept"})
    with pytest.raises(CacheUnavailable, match="max_bytes"):
        store.put_many({key(2): bytes(2 * MIB)})
    assert store.get_many([key(1), key(2)]) == [b"kept", None]
    store.close()


@pytest.mark.parametrize("change", ["missing", "short", "long"])
def test_a_chunk_that_is_odd_makes_a_miss(store, change):
    store.put_many({key(1): bytes(3 * MIB)})
    environment = store._environment
    with environment.begin(write=True) as txn:
        name = f"{key(1)}:1".encode()
        chunk = bytes(txn.get(name, db=environment.values))
        txn.delete(name, db=environment.values)
        if change != "missing":
            odd = chunk[1:] if change == "short" else chunk + b"x"
            txn.put(name, odd, db=environment.values)
    assert store.get_many([key(1)]) == [None]
    store.put_many({key(1): bytes(3 * MIB)})
    assert store.get_many([key(1)]) == [bytes(3 * MIB)]


def write_until_killed(connection, folder):
    store = open_store(f"lmdb://{folder}?max_bytes=100MB")
    for turn in count():
        if turn == 3:
            connection.send("well under way")
        name = f"wall:{os.getpid()}.{turn % 40}"
        value = bytes([turn % 251]) * (turn * 37_123 % 2_500_000)
        store.put_many({name: value, f"{name}s": b"x" * 500})


def test_killed_writers_leave_whole_values(folder):
    """Four rounds of two writers, each killed by SIGKILL in the middle of its work."""
    store = open_store(f"lmdb://{folder}?max_bytes=100MB")
    seen = 0
    for turn in range(4):
        here, there = FORK.Pipe()
        writers = [FORK.Process(target=write_until_killed, args=(there, folder)) for _ in "ab"]
        for writer in writers:
            writer.start()
        for _ in writers:
            assert here.poll(300)
            here.recv()
        time.sleep(0.4 + 0.13 * turn)
        for writer in writers:
            writer.kill()
            writer.join()
        names = keys_of(store)
        values = store.get_many(names)
        assert all(value == value[:1] * len(value) for value in values)
        assert store.stats().bytes == sum(map(len, values))
        seen += len(names)
        store.put_many({key(turn): b"lll"})  # the lock is free
    assert seen > 10
    store.close()


def keys_of(store):
    environment = store._environment
    with environment.begin() as txn:
        return [bytes(name).decode() for name, _ in txn.cursor(db=environment.entries)]


def test_a_fork_opens_the_folder_for_itself(store):
    store.put_many({key(1): b"parent"})
    assert in_child(use_in_child, store) == [b"parent", b"child"]
    assert store.get_many([key(2)]) == [b"child"]
    store.put_many({key(3): b"after"})
    assert store.get_many([key(3)]) == [b"after"]


def use_in_child(store):
    store.put_many({key(2): b"child"})
    return store.get_many([key(1), key(2)])


def test_forks_amid_the_work_of_threads(store):
    """Children forked while threads read and write can use the store at once, as their parent."""
    stop = threading.Event()
    errors = []

    def work(number):
        try:
            while not stop.is_set():
                store.put_many({key(number): bytes(200_000)})
                assert store.get_many([key(number)]) == [bytes(200_000)]
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10, 13)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            assert in_child(use_in_child, store) == [None, b"child"]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert store.get_many([key(2), key(10)]) == [b"child", bytes(200_000)]


def as_nobody(work, *arguments):
    """Run ``work`` in a child without root's right to write everywhere."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    return work(*arguments)


def refuse_to_write(folder):
    store = open_store(f"lmdb://{folder}")
    found = store.get_many([key(1), key(2)])
    with pytest.raises(CacheUnavailable, match="cannot be written"):
        store.put_many({key(3): b"x"})
    with pytest.raises(CacheUnavailable, match="cannot be written"):
        store.drop("tenant")
    again = store.get_many([key(1)])
    store.close()
    return found + again


@pytest.fixture
def public(tmp_path):
    """``tmp_path``, reachable by every user."""
    parents = [tmp_path, *tmp_path.parents[:2]]
    modes = [(path, path.stat().st_mode) for path in parents]
    for path in parents:
        path.chmod(0o755)
    yield tmp_path
    for path, mode in modes:
        path.chmod(mode)


def test_a_folder_that_can_only_be_read_still_serves(public):
    folder = public / "store"
    store = open_store(f"lmdb://{folder}")
    store.put_many({key(1): b"there"})
    store.close()
    (folder / "data.mdb").chmod(0o444)
    (folder / "lock.mdb").chmod(0o444)
    folder.chmod(0o555)
    found = in_child(as_nobody, refuse_to_write, folder)
    folder.chmod(0o755)
    assert found == [b"there", None, b"there"]


def open_only(folder):
    open_store(f"lmdb://{folder}")


def test_a_folder_that_cannot_be_made(public):
    (public / "locked").mkdir(mode=0o555)
    with pytest.raises(CacheUnavailable, match="store"):
        in_child(as_nobody, open_only, public / "locked" / "store")


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CacheUnavailable, match="file"):
            open_store(f"lmdb://{folder}")


def test_a_folder_of_something_else(folder):
    folder.mkdir()
    (folder / "data.mdb").write_bytes(os.urandom(9000))
    with pytest.raises(CacheUnavailable, match="not an LMDB file; the file is damaged, or none of"):
        open_store(f"lmdb://{folder}")


def fill_up(folder):
    """Write until the file may not grow, as on a full disk; then make room and write again."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, 4 * MIB))
    store = open_store(f"lmdb://{folder}")
    with pytest.raises(CacheUnavailable, match="MiB free"):
        store.put_many({key("large"): bytes(5 * MIB)})
    with pytest.raises(CacheUnavailable, match="MiB free"):
        [store.put_many({key(number): bytes(60_000)}) for number in range(100)]
    before = store.get_many([key(0)])
    store.delete_many([key(number) for number in range(40)])
    store.put_many({key("late"): b"fits"})
    return before + store.get_many([key("late")])


def test_a_full_disk_is_said_and_survived(folder):
    assert in_child(fill_up, folder) == [bytes(60_000), b"fits"]
