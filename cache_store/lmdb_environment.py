"""LMDB environments of this process: each folder is opened once, however many stores use it.

LMDB forbids to open an environment twice in a process, and to use one that was inherited by a
fork. So stores share, and a child process closes what it inherited and opens its own on first use.
Closing is safe between transactions only, which is why forks wait for the end of those under way.
"""

import os
import shlex
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from ragpack.errors import CacheUnavailable

from .fork_gate import ForkGate

__all__ = ["Environment", "acquire", "release", "translated"]

_MAP_BYTES = 1 << 40
"""Address space, not disk: the file is as large as what was written. Equal in every process."""
_MAX_READERS = 1024
_DAMAGED = (
    lmdb.BadTxnError,  # what comes after a first damaged page
    lmdb.CorruptedError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
)

_lock = threading.Lock()
_open: dict[Path, "Environment"] = {}


class Environment:
    """An open folder with its databases; see :mod:`.lmdb_ledger` for what lies in which."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pid = os.getpid()
        self.users = 0
        self.lmdb, self.readonly = _open_lmdb(folder)
        self.values = self._database(b"values")
        self.entries = self._database(b"entries")
        self.by_use = self._database(b"by_use")
        self.by_end = self._database(b"by_end")
        self.totals = self._database(b"totals")

    @contextmanager
    def begin(self, *, write: bool = False) -> Iterator[Any]:
        """A transaction; what it reads are views that end with it."""
        with _gate, self.lmdb.begin(write=write, buffers=True) as txn:
            yield txn

    def _database(self, name: bytes) -> Any:
        return self.lmdb.open_db(name, create=not self.readonly)


def acquire(folder: Path) -> Environment:
    """The environment of ``folder``, opened if no store of this process has done so."""
    folder = Path(os.path.realpath(folder))
    with translated(folder), _gate, _lock:
        environment = _open.get(folder) or _open.setdefault(folder, Environment(folder))
        environment.users += 1
        return environment


def release(environment: Environment) -> None:
    """Close the environment if this was its last user."""
    with _gate, _lock:
        environment.users -= 1
        if environment.users == 0 and environment.pid == os.getpid():
            del _open[environment.folder]
            environment.lmdb.close()


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Turn whatever LMDB or the file system raise into what a store raises."""
    try:
        yield
    except lmdb.ReadonlyError as error:
        advice = "the folder cannot be written; choose another one or change its permissions"
        raise CacheUnavailable(f"lmdb store {folder}: {advice}") from error
    except _DAMAGED as error:
        advice = (
            "the file is damaged, or none of ours. If the folder holds nothing else, stop what "
            f"uses it and delete it, rm -r {shlex.quote(str(folder))}: a cache loses nothing but "
            "the time to compute it again"
        )
        raise CacheUnavailable(f"lmdb store {folder}: {error}; {advice}") from error
    except (lmdb.Error, OSError) as error:
        raise CacheUnavailable(f"lmdb store {folder}: {error}{_disk(folder)}") from error


def _disk(folder: Path) -> str:
    """What is left of the disk: LMDB reports a full one as an input/output error."""
    try:
        return f" (its disk has {shutil.disk_usage(folder).free >> 20} MiB free)"
    except OSError:
        return ""


def _open_lmdb(folder: Path) -> tuple[lmdb.Environment, bool]:
    """The environment, and whether it can only be read.

    ``metasync`` off saves one of two disk flushes: after a power cut the file is sound and may
    lack the last write.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = _lmdb(folder)
        opened.reader_check()
        _restore_length(opened, folder / "data.mdb")
        return opened, False
    except (lmdb.ReadonlyError, PermissionError):
        if not (folder / "data.mdb").exists():
            raise
        return _lmdb(folder, readonly=True, lock=False), True


def _restore_length(opened: lmdb.Environment, file: Path) -> None:
    """Put zeros in place of pages that were cut off: reading past the end kills the process."""
    if file.stat().st_size < _length(opened):
        with opened.begin(write=True):  # nobody else makes it longer meanwhile
            if file.stat().st_size < (length := _length(opened)) <= _MAP_BYTES:
                os.truncate(file, length)


def _length(opened: lmdb.Environment) -> int:
    length: int = (opened.info()["last_pgno"] + 1) * opened.stat()["psize"]
    return length


def _lmdb(folder: Path, *, readonly: bool = False, lock: bool = True) -> lmdb.Environment:
    return lmdb.open(
        str(folder),
        map_size=_MAP_BYTES,
        max_dbs=8,
        max_readers=_MAX_READERS,
        max_spare_txns=0,  # a child that closes a spare one would free the parent's reader slot
        metasync=False,
        mode=0o600,
        readonly=readonly,
        lock=lock,
    )


def _close_inherited() -> None:
    for environment in _open.values():
        environment.lmdb.close()
    _open.clear()


_gate = ForkGate(_close_inherited)
