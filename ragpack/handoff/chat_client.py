"""The HTTP side of an OpenAI-compatible server: every failure says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from ragpack.errors import ConfigError, HandoffError
from ragpack.handoff.sse import Events

__all__ = ["ChatClient", "authorization"]

_ADVICE = {
    401: "set RAGPACK_API_KEY or pass api_key=",
    403: "the key may not use this model",
    404: "check the base URL and the model's name",
    429: "it is busy; ask again later",
}


class ChatClient:
    """One server, one pool of connections; may be called from several threads.

    Args:
        base_url: such as ``http://localhost:8000/v1``.
        api_key: bearer key, or None.
        timeout: seconds to wait for a connection and for each piece of an answer.

    Raises:
        ConfigError: the key cannot be sent.
    """

    def __init__(self, base_url: str, api_key: str | None, timeout: float) -> None:
        self.base_url = base_url.rstrip("/")
        self._timeout = timeout
        self._client = httpx.Client(headers=authorization(api_key), timeout=timeout)

    def chat(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of one streamed answer to messages, each as it comes.

        Raises:
            HandoffError: the server cannot be reached, refuses, or breaks off.
        """
        return self._events("chat/completions", body)

    def complete(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of one streamed answer to a prompt, each as it comes.

        Raises:
            HandoffError: the server cannot be reached, refuses, or breaks off.
        """
        return self._events("completions", body)

    def _events(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        url, finished = f"{self.base_url}/{path}", False
        with self._explained(), self._client.stream("POST", url, json=body) as response:
            _require_success(response)
            stream = Events(response.iter_bytes())
            for event in stream:
                if "error" in event:
                    raise HandoffError(f"{self.base_url} gave up: {event['error']}")
                finished = finished or _is_last(event)
                yield event
        if not (finished or stream.done):  # some servers say one of the two only
            raise HandoffError(f"{self.base_url} broke off before the answer's end")

    def only_model(self) -> str:
        """The name of the one model that the server serves.

        Raises:
            HandoffError: the server cannot be reached, refuses, or serves another number of models.
        """
        url = f"{self.base_url}/models"
        with self._explained(), self._client.stream("GET", url) as response:
            _require_success(response)
            response.read()
        served = _model_names(response)
        if len(served) != 1:
            some = ", ".join(served[:5]) or "none"
            raise HandoffError(f"{url} lists {len(served)} models ({some}): name one, ?model=NAME")
        return served[0]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the connection as errors that say what to do."""
        try:
            yield
        except httpx.TimeoutException as error:
            raise HandoffError(
                f"{self.base_url} gave nothing for {self._timeout:g} s: it may be overloaded or "
                "still loading its model; raise timeout= or ask again"
            ) from error
        except httpx.ConnectError as error:
            raise HandoffError(
                f"no decoder at {self.base_url} ({error}): is the server running there?"
            ) from error
        except httpx.HTTPError as error:
            raise HandoffError(f"{self.base_url} broke off: {error!r}") from error


def authorization(api_key: str | None) -> dict[str, str]:
    """The header that carries a bearer key; none for None.

    Raises:
        ConfigError: the key cannot be sent.
    """
    if not api_key:
        return {}
    if not (api_key.isascii() and api_key.isprintable()):
        raise ConfigError("the API key holds characters that no HTTP header can carry")
    return {"Authorization": f"Bearer {api_key}"}


def _require_success(response: httpx.Response) -> None:
    if response.is_success:
        return
    response.read()
    said = " ".join(response.text[:500].split())
    advice = f" ({known})" if (known := _ADVICE.get(response.status_code)) else ""
    raise HandoffError(f"{response.url} answered {response.status_code}: {said}{advice}")


def _is_last(event: dict[str, Any]) -> bool:
    match event:
        case {"choices": [{"finish_reason": str()}, *_]}:
            return True
    return False


def _model_names(response: httpx.Response) -> list[str]:
    try:
        match response.json():
            case {"data": [*models]}:
                return [str(model["id"]) for model in models]
    except (ValueError, LookupError, TypeError):
        pass
    raise HandoffError(f"{response.url} does not answer as an OpenAI server does")
