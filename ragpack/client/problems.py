"""Refusals of the service as errors of ragpack, and when to ask again."""

import email.utils
import time
from datetime import UTC, datetime
from typing import Any

import httpx

from ragpack import errors
from ragpack.errors import (
    InputError,
    RagpackError,
    ServiceDenied,
    ServiceError,
    ServiceUnavailable,
)

__all__ = ["Retry", "error_from", "error_of", "unreachable"]

BUSY = (429, 503)
_UNUSABLE = (400, 413, 415, 422)
_FIRST_WAIT = 0.5  # seconds, doubled each time, where the service names none


class Retry:
    """How often and how long to wait for a service that is busy (429, 503); other answers stand.

    Args:
        times: most repetitions of one request.
        longest: seconds; a service that asks for more patience than this is given up at once.
    """

    def __init__(self, times: int, longest: float) -> None:
        self._left = times
        self._longest = longest
        self._wait = _FIRST_WAIT

    def wait(self, response: httpx.Response) -> float | None:
        """Seconds to wait before asking again, or None where ``response`` stands."""
        if response.status_code not in BUSY or self._left == 0:
            return None
        asked = _retry_after(response)
        wait = self._wait if asked is None else asked
        if wait > self._longest:
            return None
        self._left -= 1
        self._wait *= 2
        return wait


def error_of(response: httpx.Response) -> RagpackError:
    """The error that a refusal stands for; its body must have been read."""
    problem = _problem(response)
    problem.setdefault("request_id", response.headers.get("x-request-id", ""))
    after = _retry_after(response)
    asked = response.request
    return error_from(
        problem, response.status_code, f"{asked.method} {asked.url}", retry_after=after
    )


def error_from(
    problem: dict[str, Any], status: int, where: str, *, retry_after: float | None = None
) -> RagpackError:
    """The error that a problem stands for.

    The service names its errors as :mod:`ragpack.errors` does, so that code which handles them at
    home handles them here. ``where``, status and request id are in the error's notes.
    """
    code, ident = str(problem.get("code", "")), str(problem.get("request_id", ""))
    detail = str(problem.get("detail") or problem.get("title") or f"status {status}")
    error: RagpackError
    if status in (401, 403):
        error = ServiceDenied(detail, status=status, code=code, request_id=ident)
    elif status in BUSY:
        error = ServiceUnavailable(
            detail, status=status, code=code, request_id=ident, retry_after=retry_after
        )
    elif status in _UNUSABLE:
        error = _named(code)(detail)
    else:
        error = ServiceError(detail, status=status, code=code, request_id=ident)
    error.add_note(f"{where}: {status} {code}, request {ident}")
    return error


def unreachable(error: httpx.HTTPError) -> ServiceUnavailable:
    """What to raise where no answer came, or half of one."""
    return ServiceUnavailable(f"no answer from the service: {type(error).__name__}: {error}")


def _named(code: str) -> type[RagpackError]:
    """The class that the service's own error has; InputError for what only the service refuses."""
    kind = getattr(errors, code, None) if code in errors.__all__ else None
    if kind is None or issubclass(kind, errors.CorruptEntry | ServiceError):
        return InputError
    found: type[RagpackError] = kind
    return found


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _retry_after(response: httpx.Response) -> float | None:
    """The header in seconds; it holds a number of them, or a date."""
    value = response.headers.get("retry-after", "")
    if value.isdecimal():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    now = datetime.fromtimestamp(time.time(), UTC)
    return max((when.replace(tzinfo=when.tzinfo or UTC) - now).total_seconds(), 0.0)
