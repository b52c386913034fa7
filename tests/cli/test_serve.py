"""``ragpack serve`` as its users run it."""

import os
import signal
import socket
import subprocess
import sys
import time

import httpx


def test_it_serves_until_it_is_told_to_stop(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "ragpack.cli", "serve", "--port", str(port)]
    command += ["--store", f"lmdb://{tmp_path / 'store'}", "--methods", "identity"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while True:
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=60)
                break
            except httpx.TransportError:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.1)
        os.kill(process.pid, signal.SIGTERM)
        _, talk = process.communicate(timeout=60)
    assert answer.json() == {"status": "ok"}
    assert process.returncode in (0, -signal.SIGTERM)
    assert f"listening on http://127.0.0.1:{port}" in talk


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
