"""What abuse costs the service: time until the refusal, its CPU time, and its memory.

Each kind of abuse is tried in turn against one server, with a well-behaved request beside it. CPU
time and memory are the server's own figures. Run from the repository's root:

    OMP_NUM_THREADS=1 python benchmarks/rest_abuse.py
"""

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
from common import parser, report
from rest_load import counted, serving

_HEAD = b"POST /v1/compress HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_GIGABYTE = 10**9
_PIECE = b"x" * 65_536
_GOOD = {
    "method": "recomp-extractive",
    "query": "How long?",
    "passages": ["The tank is 38 metres long."],
}


class Target:
    """The service under attack."""

    def __init__(self, address: str) -> None:
        self.address = address
        place = urlsplit(address)
        self._place = (place.hostname or "", place.port or 0)

    def connect(self) -> socket.socket:
        """A connection of one's own."""
        return socket.create_connection(self._place, timeout=60)

    def send(self, body: bytes) -> str:
        """The status of a whole request."""
        headers = {"Content-Type": "application/json"}
        answer = httpx.post(f"{self.address}/v1/compress", content=body, headers=headers)
        return str(answer.status_code)

    def flood(self, framing: bytes, piece: bytes) -> str:
        """How much of a gigabyte is sent before the connection is cut."""
        sent = 0
        with self.connect() as connection:
            connection.sendall(_HEAD + framing + b"\r\n\r\n")
            with suppress(BrokenPipeError, ConnectionResetError):
                while sent < _GIGABYTE:
                    connection.sendall(piece)
                    sent += len(piece)
        return f"cut after {sent / 2**20:.1f} MiB"

    def dawdle(self, start: bytes, connections: int) -> str:
        """Many connections that send a beginning and then nothing; until all are closed."""
        with ExitStack() as stack:
            opened = [stack.enter_context(self.connect()) for _ in range(connections)]
            for one in opened:
                one.sendall(start)
            for one in opened:
                while one.recv(4096):
                    pass
        return f"{connections} closed"


def many(count: int) -> bytes:
    """A request with ``count`` tiny passages."""
    return json.dumps({"query": "a", "passages": ["x"] * count}).encode()


def wrong(count: int) -> bytes:
    """A request with ``count`` numbers for passages."""
    return json.dumps({"query": "a", "passages": [1] * count}).encode()


def unknown(count: int) -> bytes:
    """A request with ``count`` fields that there are not."""
    return json.dumps(dict.fromkeys(map(str, range(count)), 1)).encode()


def abuses(target: Target) -> dict[str, Callable[[], str]]:
    """By name."""
    chunk = b"10000\r\n" + _PIECE + b"\r\n"
    return {
        "200 heads that never end": lambda: target.dawdle(b"POST /v1/comp", 200),
        "200 bodies that never come": lambda: target.dawdle(
            _HEAD + b"Content-Length: 9\r\n\r\n{", 200
        ),
        "1 GB, announced": lambda: target.flood(b"Content-Length: 1000000000", _PIECE),
        "1 GB, in chunks": lambda: target.flood(b"Transfer-Encoding: chunked", chunk),
        "headers without end": lambda: target.flood(b"X-A: b", b"X-Y: " + _PIECE[:1000] + b"\r\n"),
        "8 MB of [": lambda: target.send(b"[" * 8_000_000),
        "100,000 tiny passages": lambda: target.send(many(100_000)),
        "1,600,000 tiny passages": lambda: target.send(many(1_600_000)),
        "2,700,000 wrong passages": lambda: target.send(wrong(2_700_000)),
        "600,000 unknown fields": lambda: target.send(unknown(600_000)),
        "invalid UTF-8": lambda: target.send(b'{"query": "\xff", "passages": []}'),
        "line break in a header": lambda: target.flood(
            b"X-Request-ID: a\rInjected: yes", b"\r\n\r\n"
        ),
    }


def cost(target: Target, abuse: Callable[[], str]) -> dict[str, Any]:
    """What one kind of abuse costs, and how long a good request takes meanwhile."""
    address, beside = target.address, list[float]()
    over = threading.Event()

    def behave() -> None:
        while not over.is_set():
            start = time.perf_counter()
            httpx.post(f"{address}/v1/compress", json=_GOOD, timeout=60).raise_for_status()
            beside.append((time.perf_counter() - start) * 1000)
            over.wait(0.05)

    cpu, memory = (counted(address, name) for name in _COUNTED)
    neighbour = threading.Thread(target=behave)
    neighbour.start()
    start = time.perf_counter()
    outcome = abuse()
    seconds = time.perf_counter() - start
    over.set()
    neighbour.join()
    spent, held = (counted(address, name) for name in _COUNTED)
    return {
        "outcome": outcome,
        "seconds": round(seconds, 3),
        "cpu_ms": round((spent - cpu) * 1000),
        "MiB": round((held - memory) / 2**20, 1),
        "slowest good request, ms": round(max(beside), 1),
        "good requests": len(beside),
    }


_COUNTED = ("process_cpu_seconds_total", "process_resident_memory_bytes")


def main() -> None:
    """Try every kind of abuse."""
    parser(__doc__).parse_args()
    with serving(store="memory://", methods=["recomp-extractive"]) as address:
        target = Target(address)
        for _ in range(20):
            target.send(json.dumps(_GOOD).encode())
        report({name: cost(target, abuse) for name, abuse in abuses(target).items()})


if __name__ == "__main__":
    main()
