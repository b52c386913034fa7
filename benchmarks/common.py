"""What benchmarks share: arms timed in turn, medians with their spread, kept rows, the machine."""

import argparse
import json
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ragpack.cli.demo import handbook
from ragpack.corpus import read_passages
from ragpack.types import Passage

__all__ = [
    "DATA",
    "Kept",
    "corpus",
    "environment",
    "interleave",
    "interval",
    "parser",
    "report",
    "spread",
]

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def corpus(count: int | None = None) -> list[Passage]:
    """The first passages of the real corpus where it is at hand, else of the sample handbook."""
    path = DATA / "corpus.jsonl"
    if path.exists():
        return read_passages(path)[:count]
    with handbook() as sample:
        return read_passages(sample)[:count]


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--runs", type=int, default=20, help="timed rounds after one warm-up")
    return made


def interleave(arms: Mapping[str, Callable[[], Any]], runs: int) -> dict[str, list[float]]:
    """Milliseconds of each arm, called in turn (A B A B …) so that drift hits all alike."""
    for arm in arms.values():
        arm()
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(runs):
        for name, arm in arms.items():
            start = time.perf_counter()
            arm()
            times[name].append((time.perf_counter() - start) * 1000.0)
    return times


def spread(values: list[float]) -> dict[str, float]:
    """Median, extremes and count."""
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "n": len(values),
    }


def interval(samples: Any) -> list[float]:
    """Where 95 % of bootstrap samples lie."""
    return [round(float(end), 4) for end in np.percentile(samples, [2.5, 97.5])]


class Kept:
    """Records of a long run, also in a file, so that it may go on where it was stopped.

    Args:
        run: what the records depend on; those of other runs in the file are left alone.
        path: JSON Lines to read at the start and to append to; nothing is kept if None.
    """

    def __init__(self, run: Mapping[str, Any], path: Path | None) -> None:
        self._run, self._path = dict(run), path
        lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
        self.found = [record for record in map(json.loads, lines) if record.pop("run") == run]

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record to the file."""
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"run": self._run, **record}) + "\n")


def environment() -> dict[str, Any]:
    """What the figures depend on."""
    packages = ("ragpack-middleware", "torch", "transformers", "sentence-transformers", "numpy")
    return {
        "command": shlex.join(["python", *sys.argv]),
        "python": platform.python_version(),
        "cpu": platform.processor() or platform.machine(),
        "packages": {name: version(name) for name in packages},
    }


def report(figures: Mapping[str, Any]) -> None:
    """Write the figures and their environment to stdout as JSON."""
    sys.stdout.write(json.dumps({**figures, "environment": environment()}, indent=2) + "\n")
