"""A real server in this process: uvicorn in a thread, a store, the installed encoder."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from ragpack.service import Limits, Settings
from ragpack.service.keys import Key
from ragpack.service.server import make_server

PATIENCE = 300  # seconds: a machine with other work to do may load a model for as long
METHODS = ("identity", "recomp-mini", "recomp-extractive", "exit-mini", "exit", "ape")


class Running:
    """A server that listens, and a client of it."""

    def __init__(self, settings: Settings) -> None:
        self.server = make_server(settings, "127.0.0.1", 0)
        self._thread = threading.Thread(target=self.server.run, daemon=True)
        self._thread.start()
        while not self.server.started:
            assert self._thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        self.port: int = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE)

    def stop(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the server did not stop"


def key(name: str, secret: str, **more: object) -> Key:
    return Key(name, sha256(secret.encode()).digest(), more.pop("namespace", name), **more)


@pytest.fixture(scope="session")
def make_key() -> Callable[..., Key]:
    return key


def _starter(running: list[Running], indexes: Path) -> Callable[..., Running]:
    def start(**given: object) -> Running:
        limits = replace(Limits(deadline_ms=1000 * PATIENCE), **given.pop("limits", {}))
        settings = {"store": "memory://", "methods": METHODS, "indexes": indexes}
        settings["encoder_process"] = False  # each would load torch; those that need one say so
        running.append(Running(Settings(**(settings | given), limits=limits)))
        return running[-1]

    return start


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts a server of this test's own, in memory unless a store is named."""
    running: list[Running] = []
    yield _starter(running, tmp_path / "indexes")
    for one in running:
        one.stop()


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """Starts a server for all tests of a file, which leave it as it is."""
    running: list[Running] = []
    yield _starter(running, tmp_path_factory.mktemp("service"))
    for one in running:
        one.stop()


@pytest.fixture(scope="module")
def service(start: Callable[..., Running], until: Callable[..., None]) -> Running:
    """An open server for all tests of a file, with its models loaded."""
    running = start()
    until(lambda: running.client.get("/readyz").status_code == 200, PATIENCE)
    return running


@pytest.fixture
def passages() -> list[dict[str, str]]:
    return [
        {
            "id": "a",
            "title": "Port Ansel",
            "text": "Ferries leave at eight. The lighthouse was first lit in 1871.",
        },
        {
            "id": "b",
            "title": "Merrow Hill",
            "text": "It has six labs. The long tank is 38 metres from end to end.",
        },
    ]
