"""The command as its users run it: arguments in; exit code, stdout and stderr out."""

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ragpack.cli import main


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def ragpack(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Ran]:
    """Run ``ragpack`` with arguments in this process, its store in a folder of its own."""
    monkeypatch.setenv("RAGPACK_STORE", f"lmdb://{tmp_path / 'store'}")
    monkeypatch.setenv("COLUMNS", "200")
    # The command shows the library's warnings on stderr; later tests must not see that.
    monkeypatch.setattr(logging.getLogger("ragpack"), "handlers", [])

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["ragpack", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    rows = [
        {
            "id": "fox",
            "title": "Foxes",
            "text": "The fox is red. It hunts at night. Snow falls.",
        },
        {"id": "sea", "title": "Seas", "text": "The sea is salt. Ships cross it. Gulls follow."},
        {"id": "bee", "title": "Bees", "text": "Bees make honey. A hive has one queen."},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
