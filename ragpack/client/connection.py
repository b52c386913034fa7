"""What both clients set up in the same way."""

from typing import Any

import httpx

import ragpack
from ragpack.client.calls import Call
from ragpack.errors import ConfigError

__all__ = ["BATCH_PATH", "POLL_SECONDS", "options", "request"]

BATCH_PATH = "v1/compress/batch"  # below the base URL, whose own path stays
POLL_SECONDS = 0.2


def options(base_url: str, api_key: str | None, timeout: float) -> dict[str, Any]:
    """The keyword arguments of an httpx client.

    Raises:
        ConfigError: the URL or the key cannot be used.
    """
    url = _url(base_url)
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"the service's URL must be like http://localhost:8000, not {base_url!r}")
    if api_key and not (api_key.isascii() and api_key.isprintable()):
        raise ConfigError("the API key holds characters that no HTTP header can carry")
    headers = {"User-Agent": f"ragpack/{ragpack.__version__}"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    return {"base_url": url, "headers": headers, "timeout": timeout}


def request(call: Call[Any]) -> dict[str, Any]:
    """The keyword arguments of a request for ``call``."""
    return {"method": call.verb, "url": call.path, "json": call.body}


def _url(base_url: str) -> httpx.URL:
    try:
        return httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{base_url!r} is no URL: {error}") from error
