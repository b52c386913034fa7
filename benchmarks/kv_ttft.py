"""Time to first token: the plain prompt against stored KV, everything of a hit included.

A hit is: keys, store read, frame checks and decoding, composing the cache, choosing the tokens to
encode again, the forward of the query, the first token. Of this, *fetch* ends with the KV of every
passage in hand, and *compose* with the cache (the choice and its forward of the query included).
Arms take turns in one run. Wall time and the process's CPU time are both given, because a busy
machine stretches the first; a Redis server's own CPU time is not in the second. From the
repository's root, with a Redis server running:

    python benchmarks/kv_ttft.py --passages 2 4 8 16 --runs 3
    python benchmarks/kv_ttft.py --store memory:// --store lmdb:///tmp/kv --store redis://localhost
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from common import parser, report

from ragpack import Passage
from ragpack.cache import ArtifactCache
from ragpack.compressors.ape import Ape
from ragpack.compressors.kv_reuse import KvReuse
from ragpack.corpus import read_passages
from ragpack.handoff.decoding import greedy
from ragpack.handoff.hf import HFDecoder
from ragpack.kv.method import KVMethod
from ragpack.report import PackedContext, PackReport
from ragpack.types import Segment

QUERY = "Who is responsible for it, since when, and what has changed in the last two years?"
DIAL = (0.0, 0.05, 0.10, 0.15, 0.25, 0.50)


def passages_of(decoder: HFDecoder, count: int, tokens: int) -> list[Passage]:
    """``count`` passages of about ``tokens`` tokens each, cut from the sample handbook."""
    handbook = Path(str(files("ragpack.data") / "handbook.jsonl"))
    text = "\n".join(passage.full_text for passage in read_passages(handbook))
    ids = decoder.prompts.encode(text)
    ids = ids * (count * tokens // len(ids) + 1)
    cuts = [ids[start : start + tokens - 2] for start in range(0, count * tokens, tokens)]
    return [
        Passage(f"p{number}", f"{number} {decoder.tokenizer.decode(cut)}")
        for number, cut in enumerate(cuts)
    ]


class Arm:
    """One method over one store, filled."""

    def __init__(self, method: KVMethod, store: Any, decoder: HFDecoder) -> None:
        self.method, self.decoder = method, decoder
        self.cache = ArtifactCache(method, store, namespace="bench-ttft")
        self.fetch_ms: list[float] = []
        self.compose_ms: list[float] = []

    def fill(self, passages: list[Passage], others: Iterable[Arm]) -> None:
        """Store every passage's KV, taken from another arm's store where it is the same."""
        keys = [str(key) for key in self.cache.keys(passages)]
        for other in others:
            found = dict(zip(keys, other.cache.store.get_many(keys), strict=True))
            self.cache.store.put_many({key: data for key, data in found.items() if data})
        self.cache.fetch(passages, QUERY)
        self.cache.flush()

    def first_token(self, passages: list[Passage]) -> None:
        """One hit, to the first token."""
        start = time.perf_counter()
        looked = self.cache.fetch(passages, QUERY)
        if any(look.result != "hit" for look in looked):
            raise RuntimeError("a passage was not in the store: raise the store's cap")
        artifacts = [look.artifact for look in looked if look.artifact is not None]
        chosen = self.method.select(QUERY, passages, artifacts)
        fetched = time.perf_counter()
        segments = tuple(
            Segment(passage, ((0, len(passage.text)),), artifact=artifact)
            for passage, artifact in zip(passages, chosen, strict=True)
        )
        packed = PackedContext(QUERY, segments, PackReport(self.method.name, 0, 0))
        inputs = self.decoder.inputs(packed, QUERY)
        self.fetch_ms.append((fetched - start) * 1000.0)
        self.compose_ms.append((time.perf_counter() - fetched) * 1000.0)
        next(greedy(self.decoder.model, inputs, 1, ()))


def timed(arms: dict[str, Callable[[], Any]], runs: int) -> dict[str, dict[str, float]]:
    """Median wall and CPU milliseconds of every arm, called in turn after one warm-up."""
    walls: dict[str, list[float]] = {name: [] for name in arms}
    cpus: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(runs + 1):
        for name, arm in arms.items():
            wall, cpu = time.perf_counter(), time.process_time()
            arm()
            if turn:
                walls[name].append((time.perf_counter() - wall) * 1000.0)
                cpus[name].append((time.process_time() - cpu) * 1000.0)
    return {
        name: {
            "wall_ms": round(statistics.median(walls[name]), 1),
            "wall_min": round(min(walls[name]), 1),
            "wall_max": round(max(walls[name]), 1),
            "cpu_ms": round(statistics.median(cpus[name]), 1),
            "n": runs,
        }
        for name in arms
    }


def measure(
    decoder: HFDecoder, hits: dict[str, Arm], passages: list[Passage], runs: int
) -> dict[str, Any]:
    """Every arm on one prompt, with the ratio to the plain prompt."""
    for number, hit in enumerate(hits.values()):
        hit.fill(passages, list(hits.values())[:number])
    text = "\n\n".join(passage.full_text for passage in passages)

    def plain() -> None:
        next(islice(decoder.stream(text, QUERY, max_new_tokens=1), 1), None)

    def runner(hit: Arm) -> Callable[[], None]:
        return lambda: hit.first_token(passages)

    rows = timed({"plain": plain} | {name: runner(hit) for name, hit in hits.items()}, runs)
    for name, row in rows.items():
        row["times_faster_wall"] = round(rows["plain"]["wall_ms"] / row["wall_ms"], 2)
        row["times_faster_cpu"] = round(rows["plain"]["cpu_ms"] / row["cpu_ms"], 2)
        if name in hits:
            row["of_which_fetch_ms"] = round(statistics.median(hits[name].fetch_ms[-runs:]), 1)
            row["of_which_compose_ms"] = round(statistics.median(hits[name].compose_ms[-runs:]), 1)
    return {"prompt_tokens": decoder.inputs(text, QUERY).prompt_tokens, "arms": rows}


def main() -> None:
    """Measure every length and print the figures."""
    from ragpack.registry import open_store

    arguments_of = parser(__doc__)
    arguments_of.add_argument("--passages", type=int, nargs="+", default=[2, 4, 8, 16])
    arguments_of.add_argument("--tokens", type=int, default=256)
    arguments_of.add_argument("--dtype", default="bf16", choices=["f32", "bf16", "f16", "i8"])
    arguments_of.add_argument("--dial", type=float, nargs="*", default=list(DIAL))
    arguments_of.add_argument("--store", action="append", help="a URL, repeatable")
    arguments_of.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = arguments_of.parse_args()
    torch.set_num_threads(arguments.threads)
    decoder = HFDecoder(device="cpu")
    urls = arguments.store or ["memory://?max_bytes=8gb"]
    stores = {url.partition("://")[0]: open_store(url) for url in urls}
    hits: dict[str, Arm] = {}
    for scheme, store in stores.items():
        hits[f"{scheme} ape"] = Arm(Ape(dtype=arguments.dtype), store, decoder)
        dial = arguments.dial if store is next(iter(stores.values())) else arguments.dial[:1]
        for share in dial:
            method = KvReuse(recompute=share, dtype=arguments.dtype)
            hits[f"{scheme} kv-reuse {share:g}"] = Arm(method, store, decoder)
    everything = passages_of(decoder, max(arguments.passages), arguments.tokens)
    lengths = {
        str(count): measure(decoder, hits, everything[:count], arguments.runs)
        for count in arguments.passages
    }
    report({"threads": arguments.threads, "dtype": arguments.dtype, "by_passages": lengths})


if __name__ == "__main__":
    main()
