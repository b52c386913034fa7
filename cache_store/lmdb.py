"""The embedded store: one LMDB file, shared by any number of processes of a machine.

A write is one transaction, so a killed process leaves nothing half done. When the store is full,
the entries not used for the longest time go. Not for network file systems.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from ragpack.errors import CacheUnavailable
from ragpack.keys import namespace_prefix
from ragpack.protocols import Buffer, StoreStats

from . import chunks
from .lmdb_environment import Environment, acquire, release, translated
from .lmdb_ledger import Ledger, Row, read_row, read_totals, rows_from
from .options import parse_bytes, split_url

__all__ = ["LmdbStore"]

_DEFAULT_BYTES = 10_000_000_000
_TRANSACTION_BYTES = 64 << 20
"""A larger write is several transactions, so that other writers get their turn."""
_TOUCHES = 1024
"""Uses that are noted in memory before they cost a write."""
_PAGE = 1000


class LmdbStore:
    """Keeps entries in a folder, ``lmdb:///folder?max_bytes=10GB``.

    A folder that can be read and not written serves what it has, and refuses to store.

    Args:
        folder: made if it is not there.
        max_bytes: of all values together; the file may be about a quarter larger.

    Raises:
        CacheUnavailable: the folder cannot be opened.
    """

    def __init__(self, folder: str | Path, max_bytes: int = _DEFAULT_BYTES) -> None:
        self._folder = Path(folder)
        self._max_bytes = max_bytes
        self._touched: dict[bytes, int] = {}
        self._environment: Environment | None = acquire(self._folder)

    @classmethod
    def from_url(cls, url: str) -> "LmdbStore":
        """Open ``lmdb://`` and a folder, with the settings of the constructor.

        Raises:
            ConfigError: a setting is unknown or cannot be read.
            CacheUnavailable: the folder cannot be opened.
        """
        address, settings = split_url(url, {"max_bytes": parse_bytes})
        return cls(address.removeprefix("lmdb://"), **settings)

    def get_many(self, keys: Sequence[str]) -> list[Buffer | None]:
        """The values, in order; None for what is not there."""
        now = time.time_ns()
        names = [key.encode() for key in keys]
        with self._reading() as (txn, environment):
            found = [_read(txn, environment, name, now) for name in names]
        hits = (name for name, value in zip(names, found, strict=True) if value is not None)
        self._touched.update(dict.fromkeys(hits, now))
        if len(self._touched) > _TOUCHES:
            self._write_touches()
        return found

    def put_many(self, entries: Mapping[str, Buffer], ttl: float | None = None) -> None:
        """Store every entry; ``ttl`` in seconds.

        Raises:
            CacheUnavailable: the disk is full, the folder cannot be written, or a value is larger
                than the store may be.
        """
        values = {key.encode(): memoryview(value).cast("B") for key, value in entries.items()}
        self._require_room(max(map(len, values.values()), default=0))
        waiting = list(values.items())
        while waiting:
            batch, waiting = _divide(waiting)
            with self._writing() as (txn, ledger):
                now = time.time_ns()
                ends = 0 if ttl is None else now + int(ttl * 1e9)
                for name, value in batch:
                    _remove(txn, ledger, name)
                    _store(txn, ledger, name, value, Row(now, ends, len(value)))
                self._make_room(txn, ledger, now)

    def contains_many(self, keys: Sequence[str]) -> list[bool]:
        """Whether each key is there, without reading its value."""
        now = time.time_ns()
        with self._reading() as (txn, environment):
            rows = [read_row(txn, environment, key.encode()) for key in keys]
        return [row is not None and row.alive(now) for row in rows]

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove the keys that are there."""
        if keys:
            with self._writing() as (txn, ledger):
                for key in keys:
                    _remove(txn, ledger, key.encode())

    def scan(self, namespace: str) -> Iterator[str]:
        """Every key of a namespace; what comes or goes meanwhile may be seen or not."""
        prefix = namespace_prefix(namespace).encode()
        start = prefix
        while page := self._page(prefix, start):
            now = time.time_ns()
            yield from (name.decode() for name, row in page if row.alive(now))
            start = page[-1][0] + b"\0"

    def drop(self, namespace: str) -> int:
        """Remove a namespace; returns how many entries went."""
        prefix = namespace_prefix(namespace).encode()
        dropped = 0
        while page := self._page(prefix, prefix):
            with self._writing() as (txn, ledger):
                dropped += sum(_remove(txn, ledger, name) for name, _ in page)
        return dropped

    def stats(self) -> StoreStats:
        """What the store holds, all namespaces together."""
        with self._reading() as (txn, environment):
            total, evictions = read_totals(txn, environment)
            entries = txn.stat(environment.entries)["entries"]
        return StoreStats(entries, total, self._max_bytes, evictions)

    def close(self) -> None:
        """Note the last uses and close the file."""
        if self._environment is not None:
            self._write_touches()
            release(self._environment)
            self._environment = None

    @contextmanager
    def _reading(self) -> Iterator[tuple[Any, Environment]]:
        environment = self._opened()
        with translated(self._folder), environment.begin() as txn:
            yield txn, environment

    @contextmanager
    def _writing(self) -> Iterator[tuple[Any, Ledger]]:
        """A transaction that begins with the uses noted so far."""
        environment = self._opened()
        touched, self._touched = self._touched, {}
        with translated(self._folder), environment.begin(write=True) as txn:
            ledger = Ledger(txn, environment)
            for name, used in list(touched.items()):
                ledger.touch(name, used)
            yield txn, ledger
            ledger.save()

    def _opened(self) -> Environment:
        if self._environment is None:
            raise CacheUnavailable(f"lmdb store {self._folder}: it has been closed")
        if self._environment.pid != os.getpid():  # we are a fork of the process that opened it
            self._environment = acquire(self._folder)
        return self._environment

    def _write_touches(self) -> None:
        """Note uses; that they cannot be noted is no reason for a read to fail."""
        if self._touched:
            with suppress(CacheUnavailable), self._writing():
                pass

    def _page(self, prefix: bytes, start: bytes) -> list[tuple[bytes, Row]]:
        """The next entries from ``start`` on whose names begin with ``prefix``."""
        with self._reading() as (txn, environment):
            page = islice(rows_from(txn, environment, start), _PAGE)
            return [(name, row) for name, row in page if name.startswith(prefix)]

    def _require_room(self, largest: int) -> None:
        if largest > self._max_bytes:
            raise CacheUnavailable(
                f"lmdb store {self._folder}: a value of {largest} bytes does not fit, "
                f"raise max_bytes above {self._max_bytes}"
            )

    def _make_room(self, txn: Any, ledger: Ledger, now: int) -> None:
        for name in ledger.ended(now):
            _remove(txn, ledger, name)
        if ledger.bytes > self._max_bytes:
            ledger.environment.lmdb.reader_check()  # a killed reader would hold on to pages
        while ledger.bytes > self._max_bytes:
            _remove(txn, ledger, ledger.oldest())
            ledger.evictions += 1


def _read(txn: Any, environment: Environment, name: bytes, now: int) -> Buffer | None:
    row = read_row(txn, environment, name)
    if row is None or not row.alive(now):
        return None
    manifest = chunks.read_manifest(txn.get(_manifest(name), db=environment.values))
    if manifest is None:
        return None
    if manifest.inline is not None:
        return bytes(manifest.inline)
    pieces = list(chunks.pieces(manifest.size))
    parts = [txn.get(_chunk(name, i), b"", db=environment.values) for i in range(len(pieces))]
    whole = [len(part) for part in parts] == [piece.stop - piece.start for piece in pieces]
    return b"".join(parts) if whole else None


def _store(txn: Any, ledger: Ledger, name: bytes, value: memoryview, row: Row) -> None:
    manifest, parts = chunks.split(value)
    values = ledger.environment.values
    for number, part in enumerate(parts):
        txn.put(_chunk(name, number), part, db=values)
    txn.put(_manifest(name), manifest, db=values)
    ledger.record(name, row)


def _remove(txn: Any, ledger: Ledger, name: bytes) -> bool:
    """Delete an entry with all its chunks; whether it was there."""
    values = ledger.environment.values
    size = chunks.read_size(txn.get(_manifest(name), db=values))
    txn.delete(_manifest(name), db=values)
    for number in range(chunks.count(size or 0)):
        txn.delete(_chunk(name, number), db=values)
    return ledger.forget(name)


def _manifest(name: bytes) -> bytes:
    return name + b":m"


def _chunk(name: bytes, number: int) -> bytes:
    return b"%b:%d" % (name, number)


def _divide(
    entries: list[tuple[bytes, memoryview]],
) -> tuple[list[tuple[bytes, memoryview]], list[tuple[bytes, memoryview]]]:
    """What one transaction takes, at least one entry, and the rest."""
    total = 0
    for position, (_, value) in enumerate(entries):
        total += len(value)
        if total > _TRANSACTION_BYTES and position:
            return entries[:position], entries[position:]
    return entries, []
