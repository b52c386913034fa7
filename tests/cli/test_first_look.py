"""What somebody meets who tries the command for the first time."""

import subprocess
import sys

from ragpack.cli import console
from ragpack.report import PackReport


def test_help_and_wrong_usage_load_no_model_library() -> None:
    code = (
        "import sys, ragpack.cli.app\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'faiss', 'langchain_core'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_headline_of_a_report_is_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    console.show_report(PackReport("recomp-mini", 100, 50))
    assert "(rate 0.50), 0 hits, 0 misses\n" in capsys.readouterr().err


def test_doctor_tells_which_methods_cannot_run_and_cuts_no_path(ragpack, monkeypatch) -> None:
    checks = {check["check"]: check for check in ragpack("doctor", "--json").json}
    assert checks["method recomp-mini"]["ok"] is True
    assert checks["method exit"]["ok"] is None
    assert "google/gemma-2b-it" in checks["method exit"]["detail"]
    assert checks["method exit"]["detail"].endswith("install a model package.")
    monkeypatch.setenv("COLUMNS", "60")
    shown = ragpack("doctor").err
    assert "…" not in shown
    assert checks["encoder"]["detail"][-20:] in shown.replace("\n", "").replace(" ", "")


def test_a_setting_of_the_wrong_type_is_wrong_usage(ragpack, corpus) -> None:
    ran = ragpack("pack", "-q", "x", "--passages", corpus, "--set", "top_n=abc")
    assert ran.code == 2
    assert "recomp-mini cannot be made with {'top_n': 'abc'}" in ran.err


def test_an_unknown_method_is_answered_with_those_that_are_known(ragpack, corpus) -> None:
    ran = ragpack("pack", "-q", "x", "--passages", corpus, "--method", "zzz")
    assert ran.code == 2
    assert "no method named 'zzz'. Known: ape, " in ran.err


def test_an_index_that_cannot_be_written_is_an_error_and_no_traceback(ragpack, corpus) -> None:
    ran = ragpack("index", "--corpus", corpus, "--index", corpus)
    assert ran.code == 1
    assert f"error: the index cannot be written to {corpus}: File exists" in ran.err
