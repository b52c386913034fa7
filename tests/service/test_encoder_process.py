"""Encoders in a process of their own, which may die without a request noticing."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ragpack.models import SentenceEncoder, load_encoder, resolve
from ragpack.service import Settings
from ragpack.service.encoder_process import EncoderProcess
from ragpack.service.encoders import Encoders
from ragpack.service.metrics import Metrics

PATIENCE = 300
TEXTS = ["How long is the tank?", "", "Ferries leave at eight. " * 9, "lighthouse"]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return load_encoder("all-minilm-l6-v2")


@pytest.fixture
def process() -> Iterator[EncoderProcess]:
    started = EncoderProcess(died=lambda: None)
    yield started
    started.close()


def children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


def loads(process: EncoderProcess, encoder: SentenceEncoder, until) -> None:
    """Let the process load ``encoder``, and wait until it has, or could not."""
    process.encode(encoder, ["a"])
    until(process._loaded[encoder.fingerprint.digest].done, PATIENCE)


def test_vectors_have_the_bits_of_the_encoder(process, encoder, until):
    loads(process, encoder, until)
    before = encoder._model
    encoder._model = None  # so that nothing but the process can answer
    try:
        found = process.encode(encoder, TEXTS)
    finally:
        encoder._model = before
    np.testing.assert_array_equal(found, encoder.encode(TEXTS))


def test_files_that_changed_since_are_not_used(process, tmp_path, until, caplog):
    folder = tmp_path / "model"
    shutil.copytree(resolve("all-minilm-l6-v2").path, folder)
    encoder = load_encoder(str(folder))
    known = encoder.encode(TEXTS)
    settings = json.loads((folder / "1_Pooling/config.json").read_text())
    settings |= {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(settings))
    loads(process, encoder, until)
    np.testing.assert_array_equal(process.encode(encoder, TEXTS), known)
    assert "changed since the service started" in caplog.text


def test_no_request_fails_when_the_process_is_killed(serve, until, passages):
    before = children()
    service = serve(encoder_process=True)
    until(lambda: service.client.get("/readyz").status_code == 200, PATIENCE)

    def ask(number: int) -> list[str]:
        """The answer with a passage that is new, whose sentences go to the process together."""
        new = {"id": "c", "text": f"Berth {number} is free. Berth {number + 1} is not."}
        body = {"query": "How long is the tank?", "passages": [*passages, new], "top_n": 1}
        answer = service.client.post("/v1/compress", json=body).raise_for_status().json()
        assert not answer["report"]["fallbacks"]
        return [row["text"] for row in answer["results"]]

    expected = ask(0)
    until(lambda: len(children() - before) == 1)
    numbers = iter(range(1, 10_000))

    def died() -> bool:
        """Ask; the process is used as soon as it has loaded, and then found to be dead."""
        assert ask(next(numbers)) == expected
        return 'ragpack_failures_total{reason="EncoderProcessDied"} 1.0' in (
            service.client.get("/metrics").text
        )

    (first,) = children() - before
    until(lambda: _loaded_by(service), PATIENCE)
    assert "ragpack_encoder_process_resident_memory_bytes" in service.client.get("/metrics").text
    os.kill(first, signal.SIGKILL)
    until(died, PATIENCE)
    until(lambda: ask(next(numbers)) == expected and _loaded_by(service), PATIENCE)
    assert len(children() - before - {first}) == 1


def _loaded_by(service) -> bool:
    process = service.server.config.app.state.engine._encoders._process
    return bool(process._loaded) and all(one.done() for one in process._loaded.values())


PARENT = """
import sys, time
from ragpack.models import load_encoder
from ragpack.service.encoder_process import EncoderProcess
if __name__ == "__main__":
    process, encoder = EncoderProcess(died=lambda: None), load_encoder("all-minilm-l6-v2")
    process.encode(encoder, ["a"])
    process._loaded[encoder.fingerprint.digest].result()
    print(*process._pool._processes, flush=True)
    time.sleep(600)
"""


def test_the_process_ends_with_the_service_however_that_ends(tmp_path: Path, until):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _runs(child)
        parent.kill()
    until(lambda: not _runs(child))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_system_without_shared_semaphores_runs_them_in_the_service(monkeypatch, caplog, encoder):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refuse)
    encoders = Encoders(Settings(), Metrics())
    shared = encoders.shared(encoder)
    np.testing.assert_array_equal(shared.encode(TEXTS), encoder.encode(TEXTS))
    encoders.close()
    assert "Function not implemented" in caplog.text
