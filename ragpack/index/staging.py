"""Passages on their way to a cluster, as Parquet files that its machines read by themselves.

Texts travel as UTF-8 bytes, because Parquet's strings refuse the lone surrogates that a passage may
hold.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from ragpack.corpus import BadRecord, Item, Record
from ragpack.text import utf8
from ragpack.types import Passage

__all__ = ["read_passages", "stage"]

_SCHEMA = pa.schema(
    [("id", pa.binary()), ("title", pa.binary()), ("text", pa.binary()), ("offset", pa.int64())]
)


def stage(items: Iterable[Item], folder: Path, rows: int) -> list[str]:
    """Write the usable records into files of ``rows`` each; their paths."""
    records = (item for item in items if not isinstance(item, BadRecord))
    paths: list[str] = []
    while page := list(islice(records, rows)):
        path = folder / f"passages-{len(paths):06}.parquet"
        parquet.write_table(pa.Table.from_pylist(list(map(_row, page)), _SCHEMA), path)
        paths.append(str(path))
    return paths


def read_passages(table: pa.Table) -> Iterator[Passage]:
    """The passages of a staged table."""
    columns = (table.column(name).to_pylist() for name in ("id", "text", "title"))
    for fields in zip(*columns, strict=True):
        yield Passage(*(field.decode("utf-8", "surrogatepass") for field in fields))


def _row(record: Record) -> dict[str, bytes | int]:
    passage = record.passage
    return {
        "id": utf8(passage.id),
        "title": utf8(passage.title),
        "text": utf8(passage.text),
        "offset": record.offset,
    }
