"""What soft tokens are worth: likelihood of what is true, against text cut to the same rows.

Two tasks: gold answers to questions over passages, and continuations of Python modules that no
training read. Arms: everything (*full*), nothing (*none*), one soft token a chunk (*k*), chunks
spelled out by each policy (*random* is the mean of three draws), and for the rows that a soft arm
takes, the text cut there (*cut*) and the sentences recomp-extractive fits into them (*recomp*).
*others* are the soft tokens of another sample's passages: what they gain over *none* is not in the
context, such as how answers look. *recovered* is (none - x) / (none - full) in mean negative
log-likelihood a token. ``--oracle`` adds the chunks whose spelling out, one at a time, gains most.
With ``--rows`` a run may be stopped and goes on where it was. From the repository's root:

    python benchmarks/refrag_quality.py --samples 40 --plot pareto.png
"""

from __future__ import annotations

import random
import statistics
import sys
from dataclasses import dataclass, replace
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
SIZES = (4, 8, 16)
TEXT_SENSE = "query-cosine"
"""The policy whose rows the cut text gets, for each share; those of the others are nearly equal."""


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
    """256 tokens of a module and the next 32."""
    modules = list(python_source(held_out=True))
    found = []
    for text in random.Random(seed).sample(modules, min(count, len(modules))):
        ids = decoder.prompts.encode(text[:4000])
        context, truth = (str(decoder.tokenizer.decode(part)) for part in (ids[:256], ids[256:288]))
        found.append(Sample(GO_ON, [Passage("m", context)], truth))
    return found


def methods(
    checkpoint: Path | None, k: int, shares: list[float], policies: list[str], seeds: int
) -> dict[str, list[Refrag]]:
    """Every setting that is compared; those of one arm are averaged."""
    made = {f"k={size}": [Refrag(checkpoint, k=size, sense="none")] for size in SIZES}
    for share in shares:
        for sense in policies:
            own = [Refrag(checkpoint, k=k, sense=sense, share=share)]
            made[f"k={k} p={share:.0%} {sense}"] = own
        made[f"k={k} p={share:.0%} random"] = [
            Refrag(checkpoint, k=k, sense="random", share=share, seed=seed) for seed in range(seeds)
        ]
    return made


class Bench:
    """The decoder, the packers, and one sample after another."""

    def __init__(self, decoder: HFDecoder, arms: dict[str, list[Refrag]]) -> None:
        self.decoder = decoder
        self.packers = {
            name: [ContextPacker(method, store=MemoryStore(), strict=True) for method in settings]
            for name, settings in arms.items()
        }
        self.sentences = ContextPacker("recomp-extractive", store=MemoryStore())
        self.losses: dict[str, float] = {}
        self.rows: dict[str, int] = {}

    def measure(
        self,
        task: str,
        number: int,
        sample: Sample,
        other: Sample,
        oracle: tuple[int, float] | None,
    ) -> Measured:
        """Every arm on one sample; ``other`` is another one."""
        self.losses, self.rows = {}, {}
        ids = self.decoder.prompts.encode(sample.text)
        self._add(sample, "full", [sample.text], len(ids))
        self._add(sample, "none", [""], 0)
        for name, packers in self.packers.items():
            packed = [packer.pack(sample.query, sample.passages) for packer in packers]
            rows = packed[0].report.tokens_out
            self._add(sample, name, packed, rows)
            if " " not in name or name.endswith(TEXT_SENSE):
                self._add_text(sample, name, ids[:rows])
            if " " not in name:
                strange = packers[0].pack(sample.query, other.passages)
                self._add(sample, f"{name}: others", [strange], strange.report.tokens_out)
        if oracle is not None:
            self._add_oracle(sample, *oracle)
        return Measured(task, number, self.losses, self.rows)

    def _add_text(self, sample: Sample, name: str, ids: list[int]) -> None:
        self._add(sample, f"{name}: cut", [str(self.decoder.tokenizer.decode(ids))], len(ids))
        packed = self.sentences.pack(sample.query, sample.passages, budget=max(1, len(ids)))
        self._add(sample, f"{name}: recomp", [packed], packed.report.tokens_out)

    def _add_oracle(self, sample: Sample, k: int, share: float) -> None:
        """The chunks with the largest gains, each measured alone, spelled out together."""
        packed = self.packers[f"k={k}"][0].pack(sample.query, sample.passages)
        chunks = sum(len(placed.expanded) for placed in _placed(packed))
        gains = [self._loss(sample, _spelled(packed, [n])) for n in range(chunks)]
        best = np.argsort(gains)[: round(share * chunks)].tolist()
        spelled = _spelled(packed, best)
        rows = sum(placed.tokens for placed in _placed(spelled))
        self._add(sample, f"k={k} p={share:.0%} oracle", [spelled], rows)

    def _loss(self, sample: Sample, context: PackedContext | str) -> float:
        return -statistics.fmean(self.decoder.score(context, sample.query, sample.truth))

    def _add(
        self, sample: Sample, arm: str, contexts: list[PackedContext] | list[str], rows: int
    ) -> None:
        self.losses[arm] = statistics.fmean(self._loss(sample, each) for each in contexts)
        self.rows[arm] = rows


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


def main() -> None:
    """Measure every arm and print the figures."""
    arguments_of = parser(__doc__)
    arguments_of.add_argument("--samples", type=int, default=20)
    arguments_of.add_argument("--passages", type=int, default=2)
    arguments_of.add_argument("--checkpoint", type=Path, help="the shipped one by default")
    arguments_of.add_argument("--k", type=int, default=8, help="of the arms that spell chunks out")
    arguments_of.add_argument("--shares", type=float, nargs="*", default=[0.05, 0.1, 0.25, 0.5])
    arguments_of.add_argument("--policies", nargs="*", default=[TEXT_SENSE, "learned"])
    arguments_of.add_argument("--draws", type=int, default=3, help="of the random policy")
    arguments_of.add_argument("--oracle", type=float, help="share of chunks for the oracle")
    arguments_of.add_argument("--rows", type=Path, help="file to go on from and to add to")
    arguments_of.add_argument("--plot", type=Path)
    arguments = arguments_of.parse_args()
    arms = methods(
        arguments.checkpoint, arguments.k, arguments.shares, arguments.policies, arguments.draws
    )
    bench = Bench(HFDecoder(), arms)
    oracle = None if arguments.oracle is None else (arguments.k, arguments.oracle)
    projector = arms[f"k={SIZES[0]}"][0].parts.digest
    names = ("seed", "passages", "k", "shares", "policies", "draws", "oracle")
    run = {name: getattr(arguments, name) for name in names} | {"projector": projector}
    figures = Figures(Kept(run, arguments.rows))
    tasks = {
        "answers": answers(arguments.samples, arguments.passages, arguments.seed),
        "continuations": continuations(arguments.samples, arguments.seed, bench.decoder),
    }
    for number in range(arguments.samples):
        for task, samples in tasks.items():
            if number < len(samples) and not figures.has(task, number):
                measured = bench.measure(task, number, samples[number], samples[number - 1], oracle)
                figures.add(measured)
        print(f"sample {number + 1} of {arguments.samples}", file=sys.stderr)
    tables = {task: figures.table(task, arguments.seed) for task in tasks}
    if arguments.plot:
        plot(tables, arguments.plot)
    report({"seed": arguments.seed, "tasks": tables})


if __name__ == "__main__":
    main()
