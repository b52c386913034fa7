"""What soft tokens are worth: likelihood of what is true, against text cut to the same rows.

Two tasks: gold answers to questions over passages, and continuations of Python modules that no
training read. Arms: everything (*full*), nothing (*none*), one soft token a chunk (*k*), chunks
spelled out by each policy, and for each number of rows that a soft arm takes, the text cut there
(*cut*) and the sentences that recomp-extractive fits into it (*recomp*). *recovered* is
(none - x) / (none - full) in mean negative log-likelihood a token; *against cut* is the mean
difference to the cut text of as many rows with a 95 % interval over samples (paired bootstrap;
below 0 is better). ``--oracle`` adds the chunks whose spelling out, one at a time, gains most.
From the repository's root:

    python benchmarks/refrag_quality.py --samples 40 --checkpoint FOLDER --plot pareto.png
"""

from __future__ import annotations

import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import parser, report
from kv_quality import questions

from ragpack import ContextPacker, Passage
from ragpack.cache_store.memory import MemoryStore
from ragpack.compressors.refrag import Refrag
from ragpack.handoff.hf import HFDecoder
from ragpack.report import PackedContext
from ragpack.soft.placed import PlacedChunks
from ragpack.train.refrag.data import python_source

GO_ON = "How does the text go on?"
POLICIES = ("query-cosine", "learned", "ppl-desc", "ppl-asc", "reconstruction-loss")
RESAMPLES = 2000


@dataclass(frozen=True)
class Sample:
    """A question over passages with what is true."""

    task: str
    query: str
    passages: list[Passage]
    truth: str

    @property
    def text(self) -> str:
        """The uncompressed context."""
        return "\n\n".join(passage.full_text for passage in self.passages)


def samples(count: int, passages: int, seed: int, decoder: HFDecoder) -> Iterator[Sample]:
    """``count`` samples of each task."""
    for each in questions(count, passages, seed):
        yield Sample("answers", each.text, each.passages, each.answers[0])
    modules = list(python_source(held_out=True))
    for text in random.Random(seed).sample(modules, min(count, len(modules))):
        ids = decoder.prompts.encode(text[:4000])
        context, truth = (str(decoder.tokenizer.decode(part)) for part in (ids[:256], ids[256:288]))
        yield Sample("continuations", GO_ON, [Passage("m", context)], truth)


def methods(
    checkpoint: Path | None, shares: list[float], policies: list[str], seeds: int
) -> dict[str, Refrag]:
    """Every setting of REFRAG that is compared."""
    made = {f"k={k}": Refrag(checkpoint, k=k, sense="none") for k in (4, 8, 16)}
    for share in shares:
        made |= {
            f"k=8 p={share:.0%} {sense}": Refrag(checkpoint, k=8, sense=sense, share=share)
            for sense in policies
        }
        made |= {
            f"k=8 p={share:.0%} random {seed}": Refrag(
                checkpoint, k=8, sense="random", share=share, seed=seed
            )
            for seed in range(seeds)
        }
    return made


class Bench:
    """The decoder, the packers, and the loss of every arm on every sample."""

    def __init__(self, decoder: HFDecoder, packers: dict[str, ContextPacker]) -> None:
        self.decoder, self.packers = decoder, packers
        self.sentences = ContextPacker("recomp-extractive", store=MemoryStore())
        self.losses: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.rows: dict[tuple[str, str], list[int]] = defaultdict(list)

    def run(self, sample: Sample, oracle: float | None) -> None:
        """Add one sample to every arm."""
        ids = self.decoder.prompts.encode(sample.text)
        self._add(sample, "full", sample.text, len(ids))
        self._add(sample, "none", "", 0)
        for name, packer in self.packers.items():
            packed = packer.pack(sample.query, sample.passages)
            self._add(sample, name, packed, packed.report.tokens_out)
            self._same_rows(sample, name, ids[: packed.report.tokens_out])
        if oracle is not None:
            self._add_oracle(sample, oracle)

    def _same_rows(self, sample: Sample, name: str, ids: list[int]) -> None:
        self._add(sample, f"{name}: cut", str(self.decoder.tokenizer.decode(ids)), len(ids))
        if " " not in name:
            packed = self.sentences.pack(sample.query, sample.passages, budget=max(1, len(ids)))
            self._add(sample, f"{name}: recomp", packed, packed.report.tokens_out)

    def _add_oracle(self, sample: Sample, share: float) -> None:
        """The chunks with the largest gains, each measured alone, spelled out together."""
        packer = self.packers["k=8"]
        packed = packer.pack(sample.query, sample.passages)
        chunks = sum(len(_placed(packed, at).expanded) for at in range(len(packed.segments)))
        gains = [self._loss(sample, self._spelled(packer, packed, [n])) for n in range(chunks)]
        best = np.argsort(gains)[: round(share * chunks)].tolist()
        spelled = self._spelled(packer, packed, best)
        rows = sum(_placed(spelled, at).tokens for at in range(len(spelled.segments)))
        self._add(sample, f"k=8 p={share:.0%} oracle", spelled, rows)

    def _spelled(
        self, packer: ContextPacker, packed: PackedContext, chosen: list[int]
    ) -> PackedContext:
        """``packed`` with the ``chosen`` chunks, counted over all passages, spelled out."""
        first, segments = 0, []
        for segment in packed.segments:
            placed = segment.artifact
            assert isinstance(placed, PlacedChunks)
            mask = np.isin(np.arange(first, first + len(placed.expanded)), chosen)
            first += len(mask)
            artifact = replace(placed, expanded=mask, rows=placed.rows[~mask])
            segments.append(replace(segment, artifact=artifact))
        return replace(packed, segments=tuple(segments))

    def _loss(self, sample: Sample, context: PackedContext | str) -> float:
        scores = self.decoder.score(context, sample.query, sample.truth)
        return -statistics.fmean(scores)

    def _add(self, sample: Sample, arm: str, context: PackedContext | str, rows: int) -> None:
        self.losses[sample.task, arm].append(self._loss(sample, context))
        self.rows[sample.task, arm].append(rows)

    def figures(self, task: str, seed: int) -> dict[str, dict[str, Any]]:
        """What is told of every arm of a task."""
        arms = [arm for known, arm in self.losses if known == task]
        none, full = (statistics.fmean(self.losses[task, arm]) for arm in ("none", "full"))
        table: dict[str, dict[str, Any]] = {}
        for arm in arms:
            mean = statistics.fmean(self.losses[task, arm])
            table[arm] = {
                "rows": round(statistics.fmean(self.rows[task, arm]), 1),
                "nll": round(mean, 4),
                "recovered": round((none - mean) / (none - full), 4),
                "n": len(self.losses[task, arm]),
            }
            if f"{arm}: cut" in arms:
                table[arm]["against cut"] = self._difference(task, arm, f"{arm}: cut", seed)
        return table

    def _difference(self, task: str, arm: str, other: str, seed: int) -> list[float]:
        """Mean difference of two arms, and the ends of its interval."""
        gaps = np.array(self.losses[task, arm]) - np.array(self.losses[task, other])
        draws = np.random.default_rng(seed).choice(gaps, (RESAMPLES, len(gaps))).mean(axis=1)
        return [round(float(v), 4) for v in (gaps.mean(), *np.quantile(draws, [0.025, 0.975]))]


def _placed(packed: PackedContext, at: int) -> PlacedChunks:
    artifact = packed.segments[at].artifact
    assert isinstance(artifact, PlacedChunks)
    return artifact


def plot(tasks: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    """Rows against loss, one panel a task."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(tasks), 4.5), layout="constrained")
    for number, (task, arms) in enumerate(tasks.items(), 1):
        axes = figure.add_subplot(1, len(tasks), number, title=task)
        axes.set(xlabel="rows of context", ylabel="loss, nats a token", xscale="symlog")
        kinds = {"cut": "s", "recomp": "^", "soft": "o", "full": "*", "none": "x"}
        for kind, marker in kinds.items():
            points = [(row["rows"], row["nll"]) for arm, row in arms.items() if _kind(arm) == kind]
            axes.scatter(*zip(*points, strict=True), marker=marker, label=kind)
        axes.legend()
    figure.savefig(path, dpi=110)


def _kind(arm: str) -> str:
    return arm.rpartition(": ")[2] if ": " in arm else arm if arm in ("full", "none") else "soft"


def main() -> None:
    """Measure every arm and print the figures."""
    arguments_of = parser(__doc__)
    arguments_of.add_argument("--samples", type=int, default=20)
    arguments_of.add_argument("--passages", type=int, default=2)
    arguments_of.add_argument("--checkpoint", type=Path, help="the shipped one by default")
    arguments_of.add_argument("--shares", type=float, nargs="*", default=[0.05, 0.1, 0.25, 0.5])
    arguments_of.add_argument("--policies", nargs="*", default=list(POLICIES))
    arguments_of.add_argument("--seeds", type=int, default=3, help="of the random policy")
    arguments_of.add_argument("--oracle", type=float, help="share of chunks for the oracle")
    arguments_of.add_argument("--plot", type=Path)
    arguments = arguments_of.parse_args()
    decoder = HFDecoder()
    packers = {
        name: ContextPacker(method, store=MemoryStore(), strict=True)
        for name, method in methods(
            arguments.checkpoint, arguments.shares, arguments.policies, arguments.seeds
        ).items()
    }
    bench = Bench(decoder, packers)
    drawn = samples(arguments.samples, arguments.passages, arguments.seed, decoder)
    for number, sample in enumerate(drawn, 1):
        bench.run(sample, arguments.oracle)
        print(f"sample {number}", file=sys.stderr)
    tasks = {task: bench.figures(task, arguments.seed) for task in ("answers", "continuations")}
    if arguments.plot:
        plot(tasks, arguments.plot)
    report({"seed": arguments.seed, "tasks": tasks})


if __name__ == "__main__":
    main()
