"""What a job did with every artifact, as Parquet files."""

from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
from pyarrow import parquet

__all__ = ["JobLog"]

_ROWS = 65_536


class JobLog:
    """Collects result tables and writes them into a folder, a file for every so many rows.

    A name begins with the time of the job's start, in UTC.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self._tables: list[pa.Table] = []
        self._files = 0

    def add(self, results: pa.Table) -> None:
        """Keep the rows of ``results``."""
        self._tables.append(results)
        if sum(table.num_rows for table in self._tables) >= _ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        if self._tables:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{self._start}-{self._files:05}.parquet"
            parquet.write_table(pa.concat_tables(self._tables), path)
            self._files += 1
            self._tables.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()
