"""The service under steady load: does its memory stay flat, and what does a dead Redis cost?

Eight connections for ten minutes; every request has another query and every tenth another passage,
so that stores and memories fill. Half-way Redis is killed for ten seconds. Needs wrk and
redis-server on the PATH. Run from the repository's root:

    OMP_NUM_THREADS=1 python benchmarks/rest_soak.py --seconds 600 --plot soak.png
"""

import json
import random
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
from common import parser, report
from rest_load import LUA, counted, load, serving

from ragpack.cli.demo import handbook, questions
from ragpack.corpus import read_passages

_GROWING = 0.5
"""Share of the time in which models, threads and memories grow; after it memory should be level."""
_DEAD_SECONDS = 10


def redis_server(port: int, folder: str) -> "subprocess.Popen[bytes]":
    """A server that keeps at most 64 MB."""
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", folder]
    command += ["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def readiness(address: str) -> int:
    """The status of ``/readyz``."""
    return httpx.get(f"{address}/readyz", timeout=60).status_code


def per_minute(samples: list[tuple[float, float]]) -> float:
    """What a straight line through (seconds, value) rises in a minute."""
    seconds, values = zip(*samples, strict=True)
    return 60 * statistics.linear_regression(seconds, values).slope


def plot(samples: list[tuple[float, float]], dead: float, path: Path) -> None:
    """Memory over time, and when Redis was dead."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="seconds", ylabel="resident memory, MiB")
    axes.plot(*zip(*samples, strict=True))
    axes.axvspan(dead, dead + _DEAD_SECONDS, color="tab:red", alpha=0.3, label="Redis dead")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Load, kill, watch."""
    options = parser(__doc__)
    options.add_argument("--plot", type=Path, help="memory over time, as a picture")
    options.add_argument("--seconds", type=int, default=600)
    options.add_argument("--connections", type=int, default=8)
    chosen = options.parse_args()
    with handbook() as corpus:
        passages = random.Random(chosen.seed).sample(read_passages(corpus), 20)
    body = json.dumps([{"id": p.id, "title": p.title, "text": p.text} for p in passages])
    body = body[:-1] + ', "The @@ metre tank stands in hall @@."]'
    asked = "{" + ", ".join(json.dumps(sample["question"]) for sample in questions()) + "}"
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        redis = redis_server(port, folder)
        script = Path(folder) / "load.lua"
        script.write_text(LUA % (f"[==[{body}]==]", asked), encoding="utf-8")
        store = f"redis://127.0.0.1:{port}/0"
        with serving(store=store, methods=["recomp-extractive"]) as address:
            rows: list[dict[str, Any]] = []
            work = threading.Thread(
                target=lambda: rows.append(
                    load(address, script, chosen.connections, chosen.seconds)
                )
            )
            work.start()
            start, seen, memory = time.monotonic(), list[int](), list[tuple[float, float]]()
            killed = False
            while work.is_alive():
                gone = time.monotonic() - start
                held = counted(address, "process_resident_memory_bytes") / 2**20
                memory.append((gone, held))
                if not killed and gone > chosen.seconds / 2:
                    redis.kill()
                    redis.wait()
                    time.sleep(_DEAD_SECONDS)
                    seen.append(readiness(address))
                    redis, killed = redis_server(port, folder), True
                time.sleep(2)
            seen.append(readiness(address))
        redis.kill()
        redis.wait()
    settled = memory[int(len(memory) * _GROWING) :]
    if chosen.plot:
        plot(memory, chosen.seconds / 2, chosen.plot)
    report(
        {
            "load": rows[0],
            "readiness while Redis is dead, and at the end": seen,
            "MiB, every tenth of the time": [
                round(held) for _, held in memory[:: max(1, len(memory) // 10)]
            ],
            "MiB, least and most in the second half": [
                round(best(held for _, held in settled), 1) for best in (min, max)
            ],
            "MiB a minute in the second half": round(per_minute(settled), 2),
        }
    )


if __name__ == "__main__":
    main()
