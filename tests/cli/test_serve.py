"""``ragpack serve`` as its users run it."""

import logging
import signal
import socket
import subprocess
import sys

import httpx
import pytest


def test_it_serves_until_it_is_told_to_stop(tmp_path, free_port, until):
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "ragpack.cli", "serve", "--port", str(port)]
    command += ["--store", f"lmdb://{tmp_path / 'store'}", "--methods", "identity"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def answers():
        assert process.poll() is None
        try:
            return httpx.get(f"{url}/healthz", timeout=60).json() == {"status": "ok"}
        except httpx.TransportError:
            return False

    try:
        until(answers)
        process.send_signal(signal.SIGTERM)
        _, talk = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode in (0, -signal.SIGTERM)
    assert f"starting on {url}" in talk


def test_a_port_that_is_taken_is_said(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "ragpack.cli", "serve", "--port", port]
        command += ["--store", f"lmdb://{tmp_path / 'store'}", "--methods", "identity"]
        ran = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=300)
    assert ran.returncode == 1
    assert "address already in use" in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith(
        "error: the service could not start on http://127"
    )
    assert "--port" in ran.stderr.splitlines()[-1]


def test_it_is_not_open_to_the_network_by_accident(ragpack, monkeypatch, tmp_path):
    monkeypatch.delenv("RAGPACK_KEYS", raising=False)
    ran = ragpack("serve", "--host", "0.0.0.0")
    assert ran.code == 2
    assert "--keys" in ran.err
    assert "--open" in ran.err


def test_wrong_keys_and_methods_are_usage_errors(ragpack, monkeypatch, tmp_path):
    assert ragpack("serve", "--keys", tmp_path / "none.toml").code == 2
    monkeypatch.setenv("RAGPACK_KEYS", "team:tooshort")
    assert ragpack("serve").code == 2
    monkeypatch.delenv("RAGPACK_KEYS")
    ran = ragpack("serve", "--methods", "nope")
    assert ran.code == 2
    assert "nope" in ran.err
    assert logging.getLogger("ragpack").propagate  # only a server that starts logs as JSON


@pytest.mark.parametrize("option", ["--encoder", "--tokenizer"])
def test_a_model_that_is_not_there_is_a_usage_error(ragpack, monkeypatch, option):
    monkeypatch.delenv("RAGPACK_KEYS", raising=False)
    ran = ragpack("serve", option, "no-such-model")
    assert ran.code == 2
    assert "error: no model 'no-such-model'" in ran.err
