"""Requests per second and latency of the service, under wrk; every arm in the same run.

Twenty passages of the sample handbook, cached, ``recomp-extractive``, another query in every
request. Three servers run side by side and are loaded in turn: one that merges the requests' runs
of the encoder, in a process of its own as by default or in a thread, and one that does not.
``cpu_ms`` is the server's CPU time for a request, of both its processes, which holds on a busy
machine too. What HTTP adds is one connection's time over that of the same engine called in this
process, with a memory of recent artifacts too. Needs wrk on the PATH. Run from the root:

    OMP_NUM_THREADS=1 python benchmarks/rest_load.py --runs 3 --store redis://127.0.0.1:6379/0
"""

import itertools
import json
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
from common import parser, report, spread

from ragpack import ContextPacker, Passage
from ragpack.cli.demo import handbook, questions
from ragpack.client import Client
from ragpack.corpus import read_passages
from ragpack.service import Settings
from ragpack.service.recent import RecentArtifacts

_SERVER = """
import json, logging, sys
from pathlib import Path
from ragpack.service import Settings
from ragpack.service.keys import keys_from_text
from ragpack.service.server import make_server
settings = json.loads(sys.argv[1])
settings["indexes"] = settings.get("indexes") and Path(settings["indexes"])
settings["keys"] = tuple(keys_from_text(settings.get("keys", "")))
logging.disable()
make_server(Settings(**settings), "127.0.0.1", int(sys.argv[2])).run()
"""
LUA = """
local count, thread = 0, 0
function setup(t) thread = thread + 1; t:set("id", thread) end
function given()  -- "@@" is a number that changes with every tenth request
  return (passages:gsub("@@", id .. "-" .. math.floor(count / 10)))
end
function request()
  count = count + 1
  local query = queries[(count %% #queries) + 1] .. " " .. id .. "-" .. count
  return wrk.format("POST", "/v1/compress", {["Content-Type"] = "application/json"},
    '{"method": "recomp-extractive", "top_n": 12, "query": "' .. query ..
    '", "passages": ' .. given() .. '}')
end
function done(summary, latency, requests)
  local e = summary.errors
  local shape = '{"requests": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "failed": %%d}'
  io.stderr:write(string.format(shape, summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
end
passages = %s
queries = %s
"""


ARMS: dict[str, dict[str, Any]] = {
    "process": {},
    "thread": {"encoder_process": False},
    "off": {"batching": False},
}
_SETTLED = 15
"""Seconds in which the process of the encoders has loaded them; until then they run in a thread."""
_BLOCK = 30
"""Calls of one client before it is another's turn: about a second."""


@contextmanager
def serving(**settings: Any) -> Iterator[str]:
    """A server process; its address once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", _SERVER, json.dumps(settings), str(port)]
    process = subprocess.Popen(command)
    address = f"http://127.0.0.1:{port}"
    try:
        while not _ready(address):
            if process.poll() is not None:
                raise SystemExit("the server did not start")
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def settle() -> None:
    """Wait until the service's encoders run in a process of their own."""
    time.sleep(_SETTLED)


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=60).status_code == 200
    except httpx.TransportError:
        return False


def load(address: str, script: Path, connections: int, seconds: int) -> dict[str, Any]:
    """What wrk measured."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
    before = counted(address, "process_cpu_seconds_total")
    done = subprocess.run([*command, "-s", script, address], capture_output=True, text=True)
    spent = counted(address, "process_cpu_seconds_total") - before
    found: dict[str, Any] = json.loads(done.stderr)
    return found | {
        "per_second": found["requests"] / found["seconds"],
        "cpu_ms": 1000 * spent / max(1, found["requests"]),
    }


def counted(address: str, name: str) -> float:
    """A figure of the server's own ``/metrics``; of a process, with that of its encoders."""
    lines = httpx.get(f"{address}/metrics", timeout=60).text.splitlines()
    names = (name, f"ragpack_encoder_{name}")
    return sum(float(line.split()[1]) for line in lines if line.split()[0] in names)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, and every failure."""
    names = ("per_second", "p50", "p99", "cpu_ms")
    return {name: spread([row[name] for row in rows]) for name in names} | {
        "failed": sum(row["failed"] for row in rows)
    }


def ratio(arms: dict[str, dict[str, Any]], over: str, under: str, name: str) -> float:
    """One arm's median over another's."""
    return round(float(arms[over][name]["median"] / arms[under][name]["median"]), 2)


def overhead(
    address: str, store: str, passages: list[Passage], script: Path, rounds: int
) -> dict[str, Any]:
    """One connection against the same engine in this process, in short blocks, each round anew.

    Over HTTP with wrk, with the standard library's client, and with ragpack's own (httpx), which
    does more. What HTTP adds is a round's median over HTTP less that of its calls in the process,
    so that a machine whose speed changes from second to second changes both. ``beyond_stages_ms``
    is a call's time without the stages of its own report, nearly all of which is the encoder's:
    steadier, where only what HTTP adds is of interest.
    """
    recent = RecentArtifacts(Settings().recent_bytes, Settings().recent_seconds)
    asked = (f"{sample['question']} {n}" for n in itertools.count() for sample in questions())
    body = [{"id": p.id, "title": p.title, "text": p.text} for p in passages]
    plain = HTTPConnection(address.removeprefix("http://"), timeout=60)
    with (
        Client(address, timeout=60) as client,
        ContextPacker("recomp-extractive", store=store, top_n=12, recent=recent) as packer,
    ):

        def in_process() -> dict[str, float]:
            return packer.pack(next(asked), passages).report.ms

        def over_http() -> dict[str, float]:
            given = {"method": "recomp-extractive", "query": next(asked), "top_n": 12}
            sent = json.dumps(given | {"passages": body})
            plain.request("POST", "/v1/compress", sent, {"Content-Type": "application/json"})
            ms: dict[str, float] = json.loads(plain.getresponse().read())["report"]["ms"]
            return ms

        def over_client() -> dict[str, float]:
            found = client.compress(next(asked), passages, method="recomp-extractive", top_n=12)
            return dict(found.report.ms)

        calls = {"python": in_process, "http.client": over_http, "ragpack.client": over_client}
        times: dict[str, list[float]] = {name: [] for name in (*calls, "wrk")}
        beyond: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(rounds):
            plain.close()  # the server closes a connection that was silent for a few seconds
            for name in sorted(times, reverse=turn % 2 == 1):
                if name == "wrk":
                    times[name].append(load(address, script, 1, 1)["p50"])
                else:
                    whole, rest = block(calls[name])
                    times[name].append(whole)
                    beyond[name].append(rest)
    return {
        "p50_ms": {name: spread(values) for name, values in times.items()},
        "http_adds_ms": {
            name: spread([a - b for a, b in zip(values, times["python"], strict=True)])
            for name, values in times.items()
            if name != "python"
        },
        "beyond_stages_ms": {name: spread(values) for name, values in beyond.items()},
    }


def block(ask: Callable[[], dict[str, float]]) -> tuple[float, float]:
    """Milliseconds of a call, and those beyond its stages: medians of some calls after two more."""
    whole, beyond = [], []
    for _ in range(2 + _BLOCK):
        start = time.perf_counter()
        stages = ask()
        whole.append((time.perf_counter() - start) * 1000)
        beyond.append(whole[-1] - sum(stages.values()))
    return statistics.median(whole[2:]), statistics.median(beyond[2:])


def main() -> None:
    """Load the servers in turn at each number of connections."""
    options = parser(__doc__)
    options.set_defaults(runs=3)
    options.add_argument("--store", help="store URL; an embedded store in a temporary folder")
    options.add_argument("--connections", type=int, nargs="*", default=[1, 8, 64])
    options.add_argument("--seconds", type=int, default=8)
    options.add_argument("--rounds", type=int, default=20, help="of what HTTP adds")
    chosen = options.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not on the PATH (Debian, Ubuntu: apt-get install wrk)")
    with handbook() as corpus:
        passages = random.Random(chosen.seed).sample(read_passages(corpus), 20)
    asked = [sample["question"] for sample in questions()]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = chosen.store or f"lmdb://{folder / 'store'}"
        body = json.dumps([{"id": p.id, "title": p.title, "text": p.text} for p in passages])
        script = folder / "load.lua"
        lua = "{" + ", ".join(map(json.dumps, asked)) + "}"
        script.write_text(LUA % (f"[==[{body}]==]", lua), encoding="utf-8")
        common = {"store": store, "methods": ["recomp-extractive"]}
        arms = {name: stack.enter_context(serving(**common, **how)) for name, how in ARMS.items()}
        settle()
        figures: dict[str, Any] = {
            "overhead": overhead(arms["process"], store, passages, script, chosen.rounds)
        }
        for connections in chosen.connections:
            rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
            for _ in range(chosen.runs):
                for name, address in arms.items():
                    rounds[name].append(load(address, script, connections, chosen.seconds))
            found = {name: summary(rows) for name, rows in rounds.items()}
            figures[f"{connections} connections"] = found | {
                f"{name}: times those without merging": {
                    "requests": ratio(found, name, "off", "per_second"),
                    "requests of a CPU second": ratio(found, "off", name, "cpu_ms"),
                }
                for name in ("process", "thread")
            }
    report(figures)


if __name__ == "__main__":
    main()
