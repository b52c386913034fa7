"""A real service over real models, and a real browser to look at it with."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import httpx
import pytest

from ragpack.service import Limits, Settings
from ragpack.service.keys import Key
from ragpack.service.server import make_server

KEY = "a-long-and-random-key"
PATIENCE = 300  # seconds: a machine with other work to do may load a model for as long
PATIENT = Limits(deadline_ms=1000 * PATIENCE)
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_QUIET = ["--disable-gpu", "--disable-background-networking", "--disable-component-update"]
_QUIET += ["--disable-sync", "--no-first-run", "--disable-quic"]


@contextmanager
def _serving(settings: Settings) -> Iterator[str]:
    server = make_server(settings, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, until: Callable[..., None]) -> Iterator[str]:
    """URL of a service that anyone may use, with its models loaded."""
    indexes = tmp_path_factory.mktemp("indexes")
    settings = Settings(store="memory://", indexes=indexes, limits=PATIENT)
    with _serving(settings) as url, httpx.Client(base_url=url, timeout=PATIENCE) as client:
        until(lambda: client.get("/readyz").status_code == 200, PATIENCE)
        yield url


@pytest.fixture(scope="session")
def key() -> str:
    """The key that the locked service takes."""
    return KEY


@pytest.fixture(scope="session")
def locked_service() -> Iterator[str]:
    """URL of a service that wants a key."""
    known = (Key("team-a", sha256(KEY.encode()).digest(), "team-a"),)
    settings = Settings(store="memory://", methods=("identity",), keys=known, limits=PATIENT)
    with _serving(settings) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; of the module, since its loop is in the way of async tests."""
    binary = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if binary is None:
        pytest.skip("no Chromium on PATH: run 'make chromium', or install your system's package")
    from playwright.sync_api import sync_playwright

    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as started:
        running = started.chromium.launch(
            executable_path=binary, args=[*_QUIET, *sandbox], timeout=1000 * PATIENCE
        )
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens an empty page in a context of its own, with the context's settings."""
    contexts = []

    def opened(**settings: Any) -> Any:
        contexts.append(browser.new_context(**settings))
        contexts[-1].set_default_timeout(1000 * PATIENCE)
        return contexts[-1].new_page()

    yield opened
    for context in contexts:
        context.close()
