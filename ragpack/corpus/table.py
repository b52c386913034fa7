"""Passages from tables: Parquet files and Hugging Face datasets saved on disk (extra ``corpus``).

Rows are read in batches, so memory does not grow with the table. A table without an id column
gets ids from its content: they stay the same when rows are added or change places.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragpack.errors import InputError
from ragpack.registry import missing_extra

from .records import BadRecord, Columns, Item, Record, passage_from

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["is_saved_dataset", "read_dataset", "read_parquet", "size_of"]

_BATCH = 256
_STATE, _SPLITS = "state.json", "dataset_dict.json"


def read_parquet(path: Path, columns: Columns | None = None, source: str = "") -> Iterator[Item]:
    """Every row of a Parquet file, in order.

    Raises:
        InputError: the file cannot be read as Parquet.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise missing_extra(error, "a corpus in Parquet") from error
    columns = columns or Columns()
    try:
        with ParquetFile(path) as table:
            wanted = _wanted(columns, table.schema_arrow.names)
            batches = table.iter_batches(_BATCH, columns=wanted)
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from _items(rows, table.metadata.num_rows, path, columns, source)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read {path} as Parquet: {error}") from error


def is_saved_dataset(path: Path) -> bool:
    """Whether ``path`` is a folder that ``Dataset.save_to_disk`` made.

    Raises:
        InputError: it holds several splits, of which one must be chosen.
    """
    if (path / _SPLITS).is_file():
        names = sorted(each.name for each in path.iterdir() if (each / _STATE).is_file())
        raise InputError(
            f"{path} holds the splits {', '.join(names)} of a dataset: "
            f"name one of them, such as {path / (names[0] if names else 'train')}"
        )
    return (path / _STATE).is_file()


def read_dataset(path: Path, columns: Columns | None = None, source: str = "") -> Iterator[Item]:
    """Every row of a saved dataset, in its order.

    Raises:
        InputError: the folder cannot be read as a dataset.
        MissingExtraError: datasets is not installed.
    """
    columns = columns or Columns()
    dataset = _open_dataset(path)
    dataset = dataset.select_columns(_wanted(columns, dataset.column_names))
    tables = dataset.with_format("arrow").iter(_BATCH)  # Arrow: images are not decoded
    rows = (row for table in tables for row in table.to_pylist())
    yield from _items(rows, len(dataset), path, columns, source)


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files of a saved dataset."""
    if path.is_dir():
        return sum(each.stat().st_size for each in path.iterdir() if each.is_file())
    return path.stat().st_size


def _open_dataset(path: Path) -> "Dataset":
    try:
        from datasets import Dataset
    except ModuleNotFoundError as error:
        raise missing_extra(error, "a saved dataset as corpus") from error
    try:
        return Dataset.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {path} as a saved dataset: {error}") from error


def _wanted(columns: Columns, names: Collection[str]) -> list[str]:
    """The columns to read."""
    if columns.metadata is None:
        return list(names)
    needed = {*columns.names(names), *columns.metadata}
    return [name for name in names if name in needed]


def _items(
    rows: Iterator[dict[str, Any]], count: int, path: Path, columns: Columns, source: str
) -> Iterator[Item]:
    size = size_of(path)
    for number, row in enumerate(rows, 1):
        try:
            passage = passage_from(row, columns, name_by_content=True)
            yield Record(number, passage, size * number // count, source)
        except InputError as error:
            yield BadRecord(number, str(error), source, row)
