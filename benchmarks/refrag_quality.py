"""What soft tokens are worth: likelihood of what is true, against text cut to the same rows.

Two tasks: gold answers to questions over passages, and continuations of Python modules that no
training read. Arms: everything (*full*), nothing (*none*), one soft token a chunk (*k*), chunks
spelled out by each policy (*random* is the mean of three draws), and for the rows that a soft arm
takes, the text cut there (*cut*) and the sentences recomp-extractive fits into them (*recomp*).
*others* are the soft tokens of another sample's passages: what they gain over *none* is not in the
context, such as how answers look. *recovered* is (none - x) / (none - full) in mean negative
log-likelihood a token. ``--oracle`` adds the chunks whose spelling out, one at a time, gains most.

Samples are drawn by each of the ``--seeds`` and pooled. With ``--rows`` a run may be stopped and
goes on where it was, arm by arm: expensive arms may be measured on fewer samples into the same
file, and files of several runs may be put together. From the repository's root:

    python benchmarks/refrag_quality.py --seeds 0 1 2 --samples 8 --rows rows.jsonl
    python benchmarks/refrag_quality.py --samples 8 --oracle --rows rows.jsonl --plot pareto.png
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from common import Kept, parser, report
from kv_quality import questions
from refrag_figures import Figures, Measured, plot

from ragpack import ContextPacker, Passage
from ragpack.cache_store.memory import MemoryStore
from ragpack.compressors.refrag import Refrag
from ragpack.handoff.hf import HFDecoder
from ragpack.report import PackedContext
from ragpack.soft.placed import PlacedChunks
from ragpack.train.refrag.data import python_source

GO_ON = "How does the text go on?"
TEXT_SENSE = "query-cosine"
"""The policy whose rows the cut text gets, for each share; those of the others are nearly equal."""
POLICIES = (TEXT_SENSE, "learned", "ppl-desc", "ppl-asc", "reconstruction-loss")

Arm = tuple[str, list[PackedContext] | list[str], int]
"""A name, its contexts, whose losses are averaged, and the rows of the first one."""


@dataclass(frozen=True)
class Sample:
    """A question over passages with what is true."""

    query: str
    passages: list[Passage]
    truth: str

    @property
    def text(self) -> str:
        """The uncompressed context."""
        return "\n\n".join(passage.full_text for passage in self.passages)


def answers(count: int, passages: int, seed: int) -> list[Sample]:
    """Questions over their passages."""
    found = questions(count, passages, seed)
    return [Sample(each.text, each.passages, each.answers[0]) for each in found]


def continuations(count: int, seed: int, decoder: HFDecoder) -> list[Sample]:
    """256 tokens of a module and the next 32; fewer samples are the first ones of more."""
    modules = list(python_source(held_out=True))
    random.Random(seed).shuffle(modules)
    found = []
    for text in modules[:count]:
        ids = decoder.prompts.encode(text[:4000])
        context, truth = (str(decoder.tokenizer.decode(part)) for part in (ids[:256], ids[256:288]))
        found.append(Sample(GO_ON, [Passage("m", context)], truth))
    return found


def methods(given: argparse.Namespace) -> dict[str, list[Refrag]]:
    """Every setting that is compared; those of one arm are averaged."""
    made = partial(Refrag, given.checkpoint)
    arms = {f"k={size}": [made(k=size, sense="none")] for size in sorted({*given.sizes, given.k})}
    for share in given.shares:
        at = partial(made, k=given.k, share=share)
        for sense in given.policies:
            arms[_arm(given.k, share, sense)] = [at(sense=sense)]
        draws = [at(sense="random", seed=seed) for seed in range(given.draws)]
        arms[_arm(given.k, share, "random")] = draws
    return arms


def _arm(k: int, share: float, policy: str) -> str:
    return f"k={k} p={share:.0%} {policy}"


class Bench:
    """The decoder, the packers, and one sample after another.

    Args:
        decoder: reads every context.
        settings: methods by arm.
        oracles: shares of the chunks by arm that spells out those that gain most.
        k: tokens of their chunks.
    """

    def __init__(
        self,
        decoder: HFDecoder,
        settings: dict[str, list[Refrag]],
        oracles: dict[str, float],
        k: int,
    ) -> None:
        self.decoder, self.oracles, self.k = decoder, oracles, k
        store = MemoryStore()  # one for all: arms of one k read the same vectors
        self.packers = {
            name: [ContextPacker(method, store=store, strict=True) for method in methods]
            for name, methods in settings.items()
        }
        self.sentences = ContextPacker("recomp-extractive", store=store)
        self._known: dict[tuple[str, str, str], float] = {}

    def measure(
        self, sample: Sample, other: Sample, known: Callable[[str], bool]
    ) -> Iterator[tuple[str, float, int]]:
        """Loss and rows of every arm that is not ``known``; ``other`` is another sample."""
        for arm, contexts, rows in self._arms(sample, other):
            if not known(arm):
                yield arm, statistics.fmean(self._loss(sample, each) for each in contexts), rows
        if not all(known(arm) for arm in self.oracles):
            yield from self._best(sample)

    def _arms(self, sample: Sample, other: Sample) -> Iterator[Arm]:
        ids = self.decoder.prompts.encode(sample.text)
        yield "full", [sample.text], len(ids)
        yield "none", [""], 0
        for name, packers in self.packers.items():
            packed = [packer.pack(sample.query, sample.passages) for packer in packers]
            rows = packed[0].report.tokens_out
            yield name, packed, rows
            if " " not in name or name.endswith(TEXT_SENSE):
                yield from self._texts(sample, name, ids[:rows])
            if " " not in name:
                strange = packers[0].pack(sample.query, other.passages)
                yield f"{name}: others", [strange], strange.report.tokens_out

    def _texts(self, sample: Sample, name: str, ids: list[int]) -> Iterator[Arm]:
        yield f"{name}: cut", [str(self.decoder.tokenizer.decode(ids))], len(ids)
        packed = self.sentences.pack(sample.query, sample.passages, budget=max(1, len(ids)))
        yield f"{name}: recomp", [packed.text], packed.report.tokens_out

    def _best(self, sample: Sample) -> Iterator[tuple[str, float, int]]:
        """The chunks with the largest gains, each measured alone, spelled out together."""
        packed = self.packers[f"k={self.k}"][0].pack(sample.query, sample.passages)
        chunks = sum(len(placed.expanded) for placed in _placed(packed))
        alone = [self._loss(sample, _spelled(packed, [n])) for n in range(chunks)]
        for arm, share in self.oracles.items():
            best = np.argsort(alone)[: round(share * chunks)].tolist()
            spelled = _spelled(packed, best)
            rows = sum(placed.tokens for placed in _placed(spelled))
            yield arm, self._loss(sample, spelled), rows

    def _loss(self, sample: Sample, context: PackedContext | str) -> float:
        """Mean loss of the truth's tokens; the same text is read once."""
        if isinstance(context, PackedContext):
            return self._score(sample, context)
        key = sample.query, sample.truth, context
        if key not in self._known:
            self._known[key] = self._score(sample, context)
        return self._known[key]

    def _score(self, sample: Sample, context: PackedContext | str) -> float:
        return -statistics.fmean(self.decoder.score(context, sample.query, sample.truth))


def _placed(packed: PackedContext) -> list[PlacedChunks]:
    artifacts = [segment.artifact for segment in packed.segments]
    assert all(isinstance(artifact, PlacedChunks) for artifact in artifacts)
    return artifacts  # type: ignore[return-value]


def _spelled(packed: PackedContext, chosen: list[int]) -> PackedContext:
    """``packed``, nothing of it spelled out, with the ``chosen`` chunks of all passages so."""
    first, segments = 0, []
    for segment, placed in zip(packed.segments, _placed(packed), strict=True):
        mask = np.isin(np.arange(first, first + len(placed.expanded)), chosen)
        first += len(mask)
        artifact = replace(placed, expanded=mask, rows=placed.rows[~mask])
        segments.append(replace(segment, artifact=artifact))
    return replace(packed, segments=tuple(segments))


def arguments_of() -> argparse.Namespace:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--seeds", type=int, nargs="+", default=[0])
    made.add_argument("--samples", type=int, default=8, help="of each task and seed")
    made.add_argument("--passages", type=int, default=2)
    made.add_argument("--checkpoint", type=Path, help="the shipped one by default")
    made.add_argument("--sizes", type=int, nargs="*", default=[4, 8, 16], help="k of the others")
    made.add_argument("--k", type=int, default=8, help="of the arms that spell chunks out")
    made.add_argument("--shares", type=float, nargs="*", default=[0.05, 0.1, 0.25, 0.5])
    made.add_argument("--policies", nargs="*", default=POLICIES)
    made.add_argument("--draws", type=int, default=3, help="of the random policy")
    made.add_argument("--oracle", action="store_true", help="for every share")
    made.add_argument("--rows", type=Path, help="file to go on from and to add to")
    made.add_argument("--plot", type=Path)
    return made.parse_args()


def main() -> None:
    """Measure every arm and print the figures."""
    given = arguments_of()
    settings = methods(given)
    oracles = {_arm(given.k, share, "oracle"): share for share in given.shares if given.oracle}
    bench = Bench(HFDecoder(), settings, oracles, given.k)
    checkpoint = settings[f"k={given.k}"][0].parts.digest
    run = {"passages": given.passages, "draws": given.draws, "checkpoint": checkpoint}
    figures = Figures(Kept(run, given.rows))
    tasks = {
        seed: {
            "answers": answers(given.samples + 1, given.passages, seed),
            "continuations": continuations(given.samples + 1, seed, bench.decoder),
        }
        for seed in given.seeds
    }
    for number in range(given.samples):
        for seed, own in tasks.items():
            for task, samples in own.items():
                if number + 1 < len(samples):
                    _measure(bench, figures, (task, seed, number), samples)
        print(f"sample {number + 1} of {given.samples}", file=sys.stderr)
    tables = {task: figures.table(task) for task in figures.tasks}
    if given.plot:
        plot(tables, given.plot)
    report({"seeds": given.seeds, "tasks": tables})


def _measure(
    bench: Bench, figures: Figures, place: tuple[str, int, int], samples: list[Sample]
) -> None:
    """Add what is not known of one sample: its task, seed and number are the ``place``.

    The sample behind it lends the passages that have nothing to do with it.
    """
    number = place[-1]
    known = partial(figures.has, *place)
    for arm, loss, rows in bench.measure(samples[number], samples[number + 1], known):
        figures.add(Measured(*place, arm, loss, rows))


if __name__ == "__main__":
    main()
