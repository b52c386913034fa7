"""Milliseconds and MB/s of each store: 20 values of 15 kB in a call, and one of 8 MB.

Redis must be running; ``copy`` is a plain copy of the same bytes in this process, the yardstick.
Run from the repository's root:

    python benchmarks/stores.py --store memory:// --store lmdb:///tmp/s --store redis://localhost
"""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from common import interleave, parser, report, spread

from ragpack.protocols import CacheStore
from ragpack.registry import open_store


def cases(seed: int) -> dict[str, dict[str, bytes]]:
    """Entries of each case."""
    random = Random(seed)
    small = {f"bench:{number}": random.randbytes(15_000) for number in range(20)}
    return {"20 x 15 kB": small, "8 MB": {"bench:large": random.randbytes(8_000_000)}}


def arms(entries: dict[str, bytes], stores: dict[str, CacheStore]) -> dict[str, Callable[[], Any]]:
    """A copy, and a put and a get of ``entries`` in each store."""
    keys = list(entries)
    made: dict[str, Callable[[], Any]] = {"copy": lambda: list(map(bytearray, entries.values()))}
    for scheme, store in stores.items():
        made[f"{scheme} put"] = partial(store.put_many, entries)
        made[f"{scheme} get"] = partial(store.get_many, keys)
    return made


def main() -> None:
    """Measure every store on every case and print the figures."""
    arguments_of = parser(__doc__)
    arguments_of.add_argument("--store", action="append", required=True, help="a URL, repeatable")
    arguments = arguments_of.parse_args()
    stores = {url.partition("://")[0]: open_store(url) for url in arguments.store}
    figures: dict[str, Any] = {"seed": arguments.seed}
    for case, entries in cases(arguments.seed).items():
        megabytes = sum(map(len, entries.values())) / 1e6
        figures[case] = {}
        for arm, times in interleave(arms(entries, stores), arguments.runs).items():
            row = spread(times)
            row["MB/s"] = round(megabytes / row["median"] * 1000, 1)
            figures[case][arm] = row
        for store in stores.values():
            store.delete_many(list(entries))
    report(figures)


if __name__ == "__main__":
    main()
