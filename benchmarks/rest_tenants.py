"""Can a tenant tell by the clock what another one has sent? It should not.

In turn, the prober sends twenty passages that the other tenant has just sent and stored, and
twenty that nobody has sent. The figure is the chance that a random one of the first is answered
sooner than a random one of the second: 0.5 is no information, and p is how often shuffled labels
come as far from it. The prober's own second request shows that the test can tell a hit. Run from
the repository's root:

    OMP_NUM_THREADS=1 python benchmarks/rest_tenants.py --runs 100
"""

import random
import time
from hashlib import sha256
from typing import Any

import httpx
from common import parser, report, spread
from rest_load import serving

_SHUFFLES = 10_000
_KEYS = ",".join(f"{name}:{sha256(name.encode()).hexdigest()}" for name in ("other", "prober"))
_WORDS = ("tank", "ferry", "lamp", "goat", "salt", "queen", "harbour", "winter", "copper")


def passages(chance: random.Random) -> list[str]:
    """Twenty texts that nobody has sent before, all of one shape."""
    return [
        f"Report {chance.getrandbits(60):018d} of {chance.choice(_WORDS)}. "
        + " ".join(chance.choices(_WORDS, k=12))
        + "."
        for _ in range(20)
    ]


def ask(client: httpx.Client, name: str, texts: list[str]) -> tuple[float, dict[str, Any]]:
    """Milliseconds, and the report."""
    headers = {"Authorization": f"Bearer {name}"}
    start = time.perf_counter()
    asked = {"method": "recomp-extractive", "query": "Q?", "passages": texts}
    answer = client.post("/v1/compress", json=asked, headers=headers)
    return (time.perf_counter() - start) * 1000, answer.raise_for_status().json()["report"]


def sooner(first: list[float], second: list[float]) -> float:
    """The chance that one of ``first`` is below one of ``second``."""
    return sum(a < b for a in first for b in second) / (len(first) * len(second))


def p_value(first: list[float], second: list[float], chance: random.Random) -> float:
    """How often shuffled labels give a figure as far from 0.5."""
    both, size = [*first, *second], len(first)
    ranks = {value: rank for rank, value in enumerate(sorted(both))}
    order = [ranks[value] for value in both]
    middle = size * (len(both) - 1) / 2
    far = abs(sum(order[:size]) - middle)
    count = 0
    for _ in range(_SHUFFLES):
        count += abs(sum(chance.sample(order, size)) - middle) >= far
    return count / _SHUFFLES


def main() -> None:
    """Probe in turn and compare."""
    options = parser(__doc__)
    options.add_argument("--store", default="memory://")
    chosen = options.parse_args()
    chance = random.Random(chosen.seed)
    times: dict[str, list[float]] = {"known to the other": [], "new": [], "own again": []}
    hits = 0
    with (
        serving(store=chosen.store, methods=["recomp-extractive"], keys=_KEYS) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        for number in range(chosen.runs + 1):
            known, fresh = passages(chance), passages(chance)
            ask(client, "other", known)
            ask(client, "other", known)  # by now it is stored
            probes = [("known to the other", known), ("new", fresh)]
            for name, texts in probes if number % 2 else reversed(probes):
                ms, account = ask(client, "prober", texts)
                times[name].append(ms)
                hits += account["hits"]
            times["own again"].append(ask(client, "prober", fresh)[0])
    cut = {name: values[1:] for name, values in times.items()}
    report(
        {
            "hits across tenants": hits,
            "milliseconds": {name: spread(values) for name, values in cut.items()},
            "chance that known is sooner": round(sooner(cut["known to the other"], cut["new"]), 3),
            "p": p_value(cut["known to the other"], cut["new"], chance),
            "chance that own again is sooner": round(sooner(cut["own again"], cut["new"]), 3),
        }
    )


if __name__ == "__main__":
    main()
