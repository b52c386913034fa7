"""What an LMDB store knows of its entries: size, last use, end of life; totals of all.

| database | key | value |
|---|---|---|
| ``entries`` | entry | last use, end, size |
| ``by_use`` | last use, entry | nothing: an index, oldest first |
| ``by_end`` | end, entry | nothing: an index of the entries that end |
| ``totals`` | ``bytes``, ``evictions`` | a number |

Times are nanoseconds since 1970; an end of 0 means never.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from .lmdb_environment import Environment

__all__ = ["Ledger", "Row", "read_row", "read_totals", "rows_from"]

_ROW = struct.Struct("<QQQ")
_TIME = struct.Struct(">Q")  # big-endian, so that keys sort by time
_NUMBER = struct.Struct("<Q")


class Row(NamedTuple):
    """One entry: when it was last used, when it ends (0: never), and its size in bytes."""

    used: int
    ends: int
    size: int

    def alive(self, now: int) -> bool:
        """Whether its time is not over."""
        return not self.ends or now < self.ends


def read_row(txn: Any, environment: Environment, name: bytes) -> Row | None:
    """The entry's row, in a transaction of any kind."""
    found = txn.get(name, db=environment.entries)
    return None if found is None else Row(*_ROW.unpack(found))


def rows_from(txn: Any, environment: Environment, start: bytes) -> Iterator[tuple[bytes, Row]]:
    """The entries from the name ``start`` on, in the order of their names."""
    with txn.cursor(db=environment.entries) as cursor:
        if cursor.set_range(start):
            for name, row in cursor:
                yield bytes(name), Row(*_ROW.unpack(row))


def read_totals(txn: Any, environment: Environment) -> tuple[int, int]:
    """Bytes of all entries, and how many entries were pushed out so far."""
    found = [txn.get(name, db=environment.totals) for name in (b"bytes", b"evictions")]
    total, evictions = (0 if number is None else _NUMBER.unpack(number)[0] for number in found)
    return total, evictions


class Ledger:
    """The entries as one write transaction sees and changes them; :meth:`save` ends it."""

    def __init__(self, txn: Any, environment: Environment) -> None:
        self._txn = txn
        self.environment = environment
        self.bytes, self.evictions = read_totals(txn, environment)

    def record(self, name: bytes, row: Row) -> None:
        """Enter an entry, in place of one of that name."""
        self.forget(name)
        self._write(name, row)
        self.bytes += row.size

    def touch(self, name: bytes, used: int) -> None:
        """Note the last use of an entry if it is still there."""
        row = read_row(self._txn, self.environment, name)
        if row is not None:
            self._erase(name, row)
            self._write(name, row._replace(used=used))

    def forget(self, name: bytes) -> bool:
        """Strike an entry out; whether it was there."""
        row = read_row(self._txn, self.environment, name)
        if row is None:
            return False
        self._erase(name, row)
        self.bytes -= row.size
        return True

    def ended(self, now: int) -> Iterator[bytes]:
        """Entries whose time is over, as long as they are struck out one by one."""
        while (first := self._first(self.environment.by_end)) and first[0] <= now:
            yield first[1]

    def oldest(self) -> bytes:
        """The entry not used for the longest time; there must be one."""
        first = self._first(self.environment.by_use)
        if first is None:
            raise LookupError("the ledger is empty")
        return first[1]

    def save(self) -> None:
        """Write the totals."""
        for name, number in ((b"bytes", self.bytes), (b"evictions", self.evictions)):
            self._txn.put(name, _NUMBER.pack(number), db=self.environment.totals)

    def _first(self, index: Any) -> tuple[int, bytes] | None:
        with self._txn.cursor(db=index) as cursor:
            if not cursor.first():
                return None
            row = bytes(cursor.key())
        return _TIME.unpack_from(row)[0], row[_TIME.size :]

    def _write(self, name: bytes, row: Row) -> None:
        self._txn.put(name, _ROW.pack(*row), db=self.environment.entries)
        self._txn.put(_TIME.pack(row.used) + name, b"", db=self.environment.by_use)
        if row.ends:
            self._txn.put(_TIME.pack(row.ends) + name, b"", db=self.environment.by_end)

    def _erase(self, name: bytes, row: Row) -> None:
        self._txn.delete(name, db=self.environment.entries)
        self._txn.delete(_TIME.pack(row.used) + name, db=self.environment.by_use)
        if row.ends:
            self._txn.delete(_TIME.pack(row.ends) + name, db=self.environment.by_end)
