"""The quickstart runs, and its second question finds everything in the store."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_quickstart_runs(capsys):
    runpy.run_path(str(ROOT / "examples" / "quickstart.py"), run_name="__main__")
    first, second = capsys.readouterr().out.split("When was the lighthouse lit?\n")
    assert "The long tank is 38 metres" in first
    assert "The lighthouse was first lit in 1871." in second
    assert (first.count(", miss"), second.count(", hit")) == (2, 2)
