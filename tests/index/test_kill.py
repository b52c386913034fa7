"""kill -9 while indexing: the benchmark that does it fifty times, with a few."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.slow
def test_killed_jobs_end_with_the_same_bytes_and_repeat_nothing_that_was_done() -> None:
    command = [sys.executable, "benchmarks/index_kill.py", "--passages", "20", "--kills", "4"]
    command += ["--slice", "4096"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert figures["kills"] == 4
    assert figures["identical"] is True
    assert figures["undisturbed"]["computed"] == figures["entries"] == 40
    assert figures["killed"]["computed"] >= 40
    assert figures["killed"]["after_stored"] == figures["killed"]["after_reported"] == 0
