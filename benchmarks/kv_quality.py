"""What reused KV costs: likelihood and F1 of the gold answer, faithfulness to the plain prompt.

Measures that do not replace each other. *recovered*: how much of what the passages are worth is
kept, (none - x) / (none - sequential) in mean negative log-likelihood of the gold answer's tokens,
with a 95 % interval over questions. *kl*: divergence of the next-token distribution behind the
prompt from the plain prompt's. *f1*, with ``--answers``: of the decoder's own answer, behind a
prompt with three examples. Gold passages and the first others of a question, shuffled; questions
with yes/no answers are left out. ``--grid`` compares APE's temperatures and scales instead of the
dial. With ``--rows`` a run may be stopped and goes on where it was. From the repository's root:

    python benchmarks/kv_quality.py --questions 20
    python benchmarks/kv_quality.py --questions 20 --grid
    python benchmarks/kv_quality.py --questions 100 --passages 10 --answers --model llama-3.2-1b
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import DATA, Kept, parser, report
from kv_figures import Figure, Figures
from torch import Tensor
from transformers.cache_utils import DynamicCache

from ragpack import Passage
from ragpack.bench.measures import token_f1
from ragpack.compressors.ape import Ape
from ragpack.compressors.kv_reuse import KvReuse
from ragpack.config import DEFAULT_DECODER
from ragpack.handoff.decoding import ModelInputs
from ragpack.handoff.hf import HFDecoder
from ragpack.kv.method import KVMethod
from ragpack.models.prompt import INSTRUCTION
from ragpack.report import PackedContext, PackReport
from ragpack.types import Segment

EXAMPLES = """Copy the shortest answer to the question from the context. Examples:

Context: The old bridge at Torvik was opened in 1911 and carries one lane of traffic.
Question: When was the bridge at Torvik opened?
Answer: 1911

Context: Salt Wind is a novel by Ada Ferrant. It was filmed by Jon Mirek ten years later.
Question: Who wrote the book that Jon Mirek filmed?
Answer: Ada Ferrant

Context: The heron nests in tall trees beside lakes, mostly alders.
Question: In which trees does the heron mostly nest?
Answer: alders"""

_ANSWER_TOKENS = 16


@dataclass(frozen=True)
class Question:
    """A question, its gold answers, and some of its passages."""

    text: str
    answers: list[str]
    passages: list[Passage]


def questions(count: int, passages: int, seed: int) -> Iterator[Question]:
    """``count`` questions with ``passages`` passages each, every gold one among them."""
    lines = (DATA / "qa_dev.jsonl").read_text(encoding="utf-8").splitlines()
    order = random.Random(seed)
    order.shuffle(lines)
    for line in lines:
        record = json.loads(line)
        found = sorted(record["passages"], key=lambda p: not p["is_gold"])[:passages]
        usable = len(found) == passages and record["answers"][0].lower() not in {"yes", "no"}
        if usable and count > 0:
            count -= 1
            order.shuffle(found)
            chosen = [Passage(p["id"], p["text"], p["title"]) for p in found]
            yield Question(record["question"], record["answers"], chosen)


def dial(model: str, instruction: str) -> dict[str, KVMethod]:
    """Both methods, and every setting of the dial that is compared."""
    made: dict[str, KVMethod] = ape(model, instruction, ((1, 1), (0.9, 1), (0.9, 0.9), (0.8, 1)))
    for selection, shares in (
        ("first", (0.15,)),
        ("deviation", (0.15,)),
        ("attended", (0.0, 0.05, 0.10, 0.15, 0.25)),
    ):
        for share in shares:
            for anchor in (False, True):
                name = f"kv-reuse {selection} {share:g}" + (" anchored" if anchor else "")
                made[name] = KvReuse(
                    model,
                    recompute=share,
                    selection=selection,
                    anchor=anchor,
                    instruction=instruction,
                    dtype="f32",
                )
    return made


def grid(model: str, instruction: str) -> dict[str, KVMethod]:
    """APE at the temperatures and scales from 0.6 to 1."""
    steps = (0.6, 0.7, 0.8, 0.9, 1.0)
    return ape(model, instruction, [(heat, scale) for heat in steps for scale in steps])


def ape(
    model: str, instruction: str, settings: Iterable[tuple[float, float]]
) -> dict[str, KVMethod]:
    """APE at each (temperature, scale)."""
    return {
        f"ape T={heat:g} S={scale:g}": Ape(
            model, temperature=heat, scale=scale, instruction=instruction, dtype="f32"
        )
        for heat, scale in settings
    }


class Reader:
    """The decoder, and the KV of the question at hand."""

    def __init__(self, model: str, instruction: str, *, answers: bool) -> None:
        self._answers = answers
        self.decoder = HFDecoder(model, device="cpu", instruction=instruction)
        self._kv: dict[str, list[Any]] = {}

    def start_question(self) -> None:
        """Forget the last question's KV."""
        self._kv.clear()

    def logits(self, inputs: ModelInputs, answer: list[int]) -> Tensor:
        """Log-probabilities [answer, vocabulary] at every token of the answer."""
        ids, places = inputs.input_ids, inputs.position_ids
        more = torch.tensor([answer[:-1]], dtype=torch.long)
        steps = torch.arange(1, len(answer))[None]
        with torch.inference_mode():
            output = self.decoder.model(
                input_ids=torch.cat([ids, more], dim=1),
                position_ids=torch.cat([places, places[:, -1:] + steps], dim=1),
                past_key_values=inputs.cache,
                logits_to_keep=len(answer),
            )
        logits: Tensor = output.logits[0]
        return logits.log_softmax(-1)

    def context(self, question: Question, method: KVMethod) -> PackedContext:
        """The packed KV; passages are encoded once for all recipes of equal fingerprints."""
        made = method.fingerprint.digest
        if made not in self._kv:
            self._kv[made] = method.compress(question.passages, None)
        placed = method.select(question.text, question.passages, self._kv[made])
        segments = tuple(
            Segment(passage, ((0, len(passage.text)),), artifact=artifact)
            for passage, artifact in zip(question.passages, placed, strict=True)
        )
        return PackedContext(question.text, segments, PackReport(method.name, 0, 0))

    def inputs(self, context: PackedContext | str, question: Question) -> ModelInputs:
        """Where decoding starts; from KV where the context holds it.

        Raises:
            RuntimeError: the decoder fell back to the text.
        """
        inputs = self.decoder.inputs(context, question.text)
        if not isinstance(context, str) and isinstance(inputs.cache, DynamicCache):
            raise RuntimeError("the decoder fell back to the text")
        return inputs

    def f1(self, context: PackedContext | str, question: Question) -> float | None:
        """Of the decoder's own answer, up to its first line end; None unless answers are asked."""
        if not self._answers:
            return None
        answer = self.decoder.generate(context, question.text, max_new_tokens=_ANSWER_TOKENS)
        return token_f1(answer.text.strip().partition("\n")[0], question.answers)


def main() -> None:
    """Measure every setting on every question and print the figures."""
    arguments_of = parser(__doc__)
    arguments_of.add_argument("--questions", type=int, default=20)
    arguments_of.add_argument("--passages", type=int, default=6)
    arguments_of.add_argument("--model", default=DEFAULT_DECODER)
    arguments_of.add_argument("--grid", action="store_true", help="temperatures and scales of APE")
    arguments_of.add_argument("--answers", action="store_true", help="also F1, after examples")
    arguments_of.add_argument("--only", nargs="+", help="settings by name; all by default")
    arguments_of.add_argument("--rows", type=Path, help="file to go on from and to add to")
    arguments = arguments_of.parse_args()
    instruction = EXAMPLES if arguments.answers else INSTRUCTION
    reader = Reader(arguments.model, instruction, answers=arguments.answers)
    settings = (grid if arguments.grid else dial)(arguments.model, instruction)
    settings = {name: settings[name] for name in arguments.only or settings}
    run = {name: getattr(arguments, name) for name in ("model", "passages", "seed", "answers")}
    figures = Figures(Kept(run, arguments.rows))
    names = ["sequential", "none", *settings]
    asked = questions(arguments.questions, arguments.passages, arguments.seed)
    for number, question in enumerate(asked):
        if missing := figures.missing(number, names):
            for figure in measure(number, question, reader, settings, missing):
                figures.add(figure)
            print(f"question {number + 1} of {arguments.questions}", file=sys.stderr)
    report(figures.to_dict(arguments.questions, names, arguments.seed))


def measure(
    number: int,
    question: Question,
    reader: Reader,
    settings: Mapping[str, KVMethod],
    wanted: Sequence[str],
) -> Iterator[Figure]:
    """The wanted settings on one question."""
    reader.start_question()
    gold = reader.decoder.prompts.encode(question.answers[0])
    whole = "\n\n".join(passage.full_text for passage in question.passages)
    plain: dict[str, PackedContext | str] = {"sequential": whole, "none": ""}
    start = reader.inputs(whole, question)
    sequential = reader.logits(start, gold)
    for name in wanted:
        context = plain[name] if name in plain else reader.context(question, settings[name])
        row = reader.logits(reader.inputs(context, question), gold)
        likely = row[torch.arange(len(gold)), torch.tensor(gold)]
        yield Figure(
            number,
            name,
            loss=-float(likely.mean()),
            divergence=float((sequential[0].exp() * (sequential[0] - row[0])).sum()),
            prompt_tokens=start.prompt_tokens,
            f1=reader.f1(context, question),
        )


if __name__ == "__main__":
    main()
