"""The command-line contract: data on stdout, talk on stderr, exit codes, JSON shapes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ragpack.corpus import read_passages
from ragpack.registry import open_store

# The command; a shell hands an ignored SIGINT on to what it runs in the background.
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from ragpack.cli import main
main()
"""


def test_index_then_pack_from_the_index(ragpack, corpus, tmp_path) -> None:
    folder = tmp_path / "index"
    first = ragpack("index", "--corpus", corpus, "--index", folder, "--json")
    assert first.code == 0
    assert first.json["passages"] == first.json["added"] == 3
    assert first.json["computed"] == {"dense": 3, "recomp-mini": 3}
    again = ragpack("index", "--corpus", corpus, "--index", folder, "--json")
    assert again.json["computed"] == {}
    assert again.json["hits"] == {"dense": 3, "recomp-mini": 3}
    assert again.json["added"] == 0

    query = "What do bees make?"
    packed = ragpack("pack", "--query", query, "--index", folder, "-k", 2, "--json")
    assert packed.code == 0
    assert set(packed.json) == {"query", "context", "passages", "report"}
    assert packed.json["passages"][0]["id"] == "bee"
    assert set(packed.json["passages"][0]) == {"id", "kept", "tokens_in", "tokens_out", "cache"}
    report = packed.json["report"]
    assert {"tokens_in", "tokens_out", "rate", "hits", "misses", "ms"} <= set(report)
    assert (report["hits"], report["misses"]) == (2, 0)


def test_kept_spans_are_those_of_the_file(ragpack, corpus) -> None:
    ran = ragpack(
        "pack", "-q", "What do bees make?", "--passages", corpus, "--set", "top_n=1", "--json"
    )
    texts = {p.id: p.text for p in read_passages(corpus)}
    kept = {
        row["id"]: [texts[row["id"]][a:b] for a, b in row["kept"]] for row in ran.json["passages"]
    }
    assert kept == {"fox": [], "sea": [], "bee": ["Bees make honey."]}
    assert ran.json["context"] == "Bees\nBees make honey."
    assert ran.json["passages"][0]["reason"] == "nothing relevant"


def test_without_json_stdout_is_the_context_alone(ragpack, corpus) -> None:
    ran = ragpack("pack", "-q", "red fox", "--passages", corpus, "-m", "identity")
    assert ran.out == "\n\n".join(p.full_text for p in read_passages(corpus)) + "\n"
    assert "rate 1.00" in ran.err


def test_budget_is_held(ragpack, corpus) -> None:
    ran = ragpack("pack", "-q", "red fox", "--passages", corpus, "--budget", 12, "--json")
    assert ran.json["report"]["tokens_out"] <= 12
    assert ran.json["report"]["budget"] == 12


def test_passages_below_min_relevance_give_nothing(ragpack, corpus) -> None:
    ran = ragpack(
        "pack", "-q", "What do bees make?", "--passages", corpus, "--min-relevance", 0.4, "--json"
    )
    reasons = {row["id"]: row.get("reason", "") for row in ran.json["passages"]}
    assert reasons == {"fox": "below min_relevance", "sea": "below min_relevance", "bee": ""}
    assert ran.json["report"]["fallbacks"] == {}


def test_bad_lines_are_named_and_the_job_goes_on(ragpack, corpus, tmp_path) -> None:
    with corpus.open("a") as lines:
        lines.write("{broken\n")
        lines.write(json.dumps({"id": "fox", "text": "Another text."}) + "\n")
    ran = ragpack("index", "--corpus", corpus, "--index", tmp_path / "index", "--json")
    assert ran.code == 1
    assert ran.json["passages"] == 3
    assert [bad["line"] for bad in ran.json["failed"]] == [4, 5]
    assert "corpus.jsonl, line 1 for another text" in ran.json["failed"][1]["reason"]
    assert "line 4: not JSON" in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["pack", "-q", "x", "--passages", "F", "-m", "recomp-extractiv"], 2, "did you mean"),
        (["pack", "-q", "x"], 2, "--passages FILE or --index DIR"),
        (["pack", "-q", "x", "--passages", "F", "--budget", "0"], 2, "at least 1 token"),
        (["pack", "-q", "x", "--passages", "F", "--min-relevance", "nan"], 2, "finite number"),
        (
            ["pack", "-q", "x", "--passages", "F", "-m", "identity", "--min-relevance", "0"],
            2,
            "'fox' has none: identity does not judge",
        ),
        (["pack", "-q", "x", "--passages", "F", "--set", "top_n"], 2, "NAME=VALUE"),
        (["pack", "-q", "x", "--passages", "F", "--store", "nowhere"], 2, "must be a URL"),
        (["pack", "-q", "x", "--passages", "absent.jsonl"], 1, "cannot read"),
        (["pack", "-q", "x", "--index", "absent"], 1, "absent"),
        (["pack", "--passages", "F"], 2, "--query"),
        (["index", "--corpus", "https://example.org/c.jsonl"], 1, "URL"),
        (["index", "--corpus", "E"], 1, "no usable passage"),
        (["index", "--corpus", "F", "--methods", "identity"], 2, "stores nothing"),
        (["demo", "--question", "99"], 2, "from 1 to 30"),
        (["no-such-command"], 2, "No such command"),
    ],
)
def test_wrong_use_says_what_to_do(ragpack, corpus, tmp_path, arguments, code, said) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    paths = {"F": corpus, "E": tmp_path / "empty.jsonl"}
    extra = ["--index", tmp_path / "index"] if arguments[0] == "index" else []
    ran = ragpack(*[paths.get(argument, argument) for argument in arguments], *extra)
    assert (ran.code, ran.out) == (code, "")
    assert said in " ".join(ran.err.split())
    assert "Traceback" not in ran.err


def test_an_index_of_another_encoder_is_refused(ragpack, corpus, tmp_path) -> None:
    folder = tmp_path / "index"
    assert ragpack("index", "--corpus", corpus, "--index", folder).code == 0
    manifest = folder / "manifest.json"
    fields = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(fields | {"fingerprint": "0" * 64}))
    ran = ragpack("pack", "-q", "fox", "--index", folder)
    assert ran.code == 1
    assert "was made by the encoder" in " ".join(ran.err.split())


def test_ask_answers_from_the_packed_context(ragpack, corpus) -> None:
    ran = ragpack(
        "ask", "-q", "What do bees make?", "--passages", corpus, "--compare", "--json",
        "--max-new-tokens", 12,
    )  # fmt: skip
    assert ran.code == 0
    assert "honey" in ran.json["answer"]["text"].lower()
    assert ran.json["answer"]["ttft_ms"] <= ran.json["answer"]["total_ms"]
    assert ran.json["answer"]["prompt_tokens"] <= ran.json["plain"]["prompt_tokens"]


def test_demo_twice_then_everything_is_from_the_store(ragpack) -> None:
    first = ragpack("demo", "--json")
    second = ragpack("demo", "--json")
    assert first.code == second.code == 0
    assert first.json["all_from_store"] is False
    assert second.json["all_from_store"] is True
    assert second.json["index"]["computed"] == {}
    assert second.json["answer"]["text"] == first.json["answer"]["text"]
    assert second.json["report"]["tokens_out"] < second.json["report"]["tokens_in"]


def test_doctor_reports_what_fails(ragpack) -> None:
    good = ragpack("doctor", "--json")
    assert good.code == 0
    assert all(check["ok"] is not False for check in good.json)
    bad = ragpack("doctor", "--store", "redis://127.0.0.1:1/0")
    assert bad.code == 1
    assert "FAILED" in bad.err


def test_cache_commands(ragpack, corpus, tmp_path) -> None:
    ragpack("pack", "-q", "red fox", "--passages", corpus)
    assert ragpack("cache", "stats", "--json").json["entries"] == 3
    assert ragpack("cache", "verify", "--json").json["sound"] == 3
    assert ragpack("cache", "drop", "--yes", "--json").json["dropped"] == 3
    assert ragpack("cache", "stats", "--json").json["entries"] == 0


def test_cache_verify_finds_and_heals(ragpack, corpus, redis_url) -> None:
    import redis

    ragpack("pack", "-q", "red fox", "--passages", corpus, "--store", redis_url)
    with redis.Redis.from_url(redis_url) as client:
        name = next(key for key in client.keys("*") if client.type(key) == b"string")
        value = bytearray(client.get(name))
        value[-1] ^= 1
        client.set(name, bytes(value))
    found = ragpack("cache", "verify", "--store", redis_url, "--json")
    assert (found.code, found.json["sound"]) == (1, 2)
    assert ragpack("cache", "verify", "--heal", "--store", redis_url, "--json").code == 0
    assert ragpack("cache", "verify", "--store", redis_url, "--json").json["sound"] == 2


def test_interrupted_indexing_goes_on(tmp_path: Path, until: Callable[..., None]) -> None:
    """A real process, interrupted as Ctrl-C does, then run again to the same index."""
    corpus, folder = tmp_path / "many.jsonl", tmp_path / "index"
    corpus.write_text(
        "".join(
            json.dumps({"id": str(n), "text": f"Passage {n} is about item {n * 7}."}) + "\n"
            for n in range(3000)
        )
    )
    url = f"lmdb://{tmp_path / 'store'}"
    environment = os.environ | {"RAGPACK_STORE": url}
    command = [sys.executable, "-c", INTERRUPTIBLE, "index", "--corpus", str(corpus)]
    command += ["--index", str(folder), "--methods", "", "--json"]
    job = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    store = open_store(url)
    try:
        until(lambda: store.stats().entries or job.poll() is not None)
        job.send_signal(signal.SIGINT)
        _, stderr = job.communicate(timeout=120)
    finally:
        job.kill()
        store.close()
    assert job.returncode not in (0, None)
    assert b"Traceback" not in stderr
    assert not (folder / "manifest.json").exists()
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    summary = json.loads(done.stdout)
    assert summary["added"] == 3000
    assert summary["hits"]["dense"] > 0
    assert summary["hits"]["dense"] + summary["computed"].get("dense", 0) == 3000
