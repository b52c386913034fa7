"""Who may come in: a key, its rate and quota, and a free place among the requests under way."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from limits import RateLimitItem
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.datastructures import Headers

from ragpack import config
from ragpack.service.caller import Caller
from ragpack.service.keys import Key, KeyRing
from ragpack.service.problems import Problem

__all__ = ["Gate"]


class Gate:
    """Names the caller of a request, or turns it away before its body is read.

    Without keys everybody is the caller "anyone", in the default namespace. Rates and quotas are
    counted in this process.
    """

    def __init__(self, ring: KeyRing, in_flight: int) -> None:
        self._ring = ring
        self._free = in_flight
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def identify(self, headers: Headers) -> Caller:
        """Who sent the request.

        Raises:
            Problem: 401 for no key, an unknown or an expired one; 429 above the key's rate.
        """
        if not self._ring:
            return Caller("anyone", config.namespace(), lambda passages: None)
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        key = self._ring.find(bearer.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            raise _unauthorized("Unauthorized", "send a known key: Authorization: Bearer KEY")
        if key.expired:
            raise _unauthorized("ExpiredKey", f"the key {key.name!r} has expired; ask for another")
        self._spend(key.rate, key, 1, "TooManyRequests")
        return Caller(key.name, key.namespace, partial(self._charge, key))

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the places for requests under way; used from the event loop alone.

        Raises:
            Problem: 429 where none is free.
        """
        if self._free < 1:
            detail = "as many requests are under way as this service takes; try again"
            raise Problem(429, "Overloaded", detail, headers={"Retry-After": "1"})
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    def _charge(self, key: Key, passages: int) -> None:
        self._spend(key.quota, key, passages, "QuotaExceeded")

    def _spend(self, limit: RateLimitItem | None, key: Key, cost: int, code: str) -> None:
        if limit is None or self._limiter.hit(limit, key.name, cost=cost):
            return
        ends = self._limiter.get_window_stats(limit, key.name).reset_time
        wait = max(1, math.ceil(ends - time.time()))
        detail = f"the key {key.name!r} may have {limit}; try again in {wait} s"
        raise Problem(429, code, detail, headers={"Retry-After": str(wait)})


def _unauthorized(code: str, detail: str) -> Problem:
    return Problem(401, code, detail, headers={"WWW-Authenticate": "Bearer"})
