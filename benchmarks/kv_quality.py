"""What reused KV costs: gold-answer likelihood and faithfulness to the plain prompt.

Two measures that do not replace each other. *recovered*: how much of what the passages are worth is
kept, (none - x) / (none - sequential) in mean negative log-likelihood of the gold answer's tokens.
*kl*: divergence of the next-token distribution behind the prompt from the plain prompt's. Gold
passages and the first others of a question, shuffled; questions with yes/no answers are left out.
From the repository's root:

    python benchmarks/kv_quality.py --questions 20
    python benchmarks/kv_quality.py --questions 100 --passages 10 --model llama-3.2-1b
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from common import DATA, parser, report
from torch import Tensor
from transformers.cache_utils import DynamicCache

from ragpack import Passage
from ragpack.compressors.ape import Ape
from ragpack.compressors.kv_reuse import KvReuse
from ragpack.config import DEFAULT_DECODER
from ragpack.handoff.decoding import ModelInputs
from ragpack.handoff.hf import HFDecoder
from ragpack.kv.method import KVMethod
from ragpack.report import PackedContext, PackReport
from ragpack.types import Segment


@dataclass(frozen=True)
class Question:
    """A question, its first gold answer, and some of its passages."""

    text: str
    answer: str
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
            yield Question(record["question"], record["answers"][0], chosen)


def methods(model: str) -> dict[str, KVMethod]:
    """Every setting that is compared."""
    made: dict[str, KVMethod] = {
        f"ape T={heat:g} S={scale:g}": Ape(model, temperature=heat, scale=scale, dtype="f32")
        for heat, scale in ((1, 1), (0.9, 1), (0.9, 0.9), (0.8, 1))
    }
    for selection, shares in (
        ("first", (0.15,)),
        ("deviation", (0.15,)),
        ("attended", (0.0, 0.05, 0.10, 0.15, 0.25)),
    ):
        for share in shares:
            for anchor in (False, True):
                name = f"kv-reuse {selection} {share:g}" + (" anchored" if anchor else "")
                made[name] = KvReuse(
                    model, recompute=share, selection=selection, anchor=anchor, dtype="f32"
                )
    return made


class Reader:
    """The decoder, and the KV of the question at hand."""

    def __init__(self, model: str) -> None:
        self.decoder = HFDecoder(model, device="cpu")
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

    def plain(self, question: Question, passages: list[Passage]) -> ModelInputs:
        """The plain prompt."""
        text = "\n\n".join(passage.full_text for passage in passages)
        return self.decoder.inputs(text, question.text)

    def stored(self, question: Question, method: KVMethod) -> ModelInputs:
        """The start from KV; passages are encoded once for all recipes of equal fingerprints."""
        made = method.fingerprint.digest
        if made not in self._kv:
            self._kv[made] = method.compress(question.passages, None)
        placed = method.select(question.text, question.passages, self._kv[made])
        segments = tuple(
            Segment(passage, ((0, len(passage.text)),), artifact=artifact)
            for passage, artifact in zip(question.passages, placed, strict=True)
        )
        packed = PackedContext(question.text, segments, PackReport(method.name, 0, 0))
        inputs = self.decoder.inputs(packed, question.text)
        if isinstance(inputs.cache, DynamicCache):
            raise RuntimeError("the decoder fell back to the text")
        return inputs


def main() -> None:
    """Measure every setting on every question and print the figures."""
    arguments_of = parser(__doc__)
    arguments_of.add_argument("--questions", type=int, default=20)
    arguments_of.add_argument("--passages", type=int, default=6)
    arguments_of.add_argument("--model", default=DEFAULT_DECODER)
    arguments_of.add_argument("--only", nargs="+", help="settings by name; all by default")
    arguments = arguments_of.parse_args()
    reader, settings = Reader(arguments.model), methods(arguments.model)
    if arguments.only:
        settings = {name: settings[name] for name in arguments.only}
    loss: dict[str, list[float]] = defaultdict(list)
    divergence: dict[str, list[float]] = defaultdict(list)
    tokens: list[int] = []
    for question in questions(arguments.questions, arguments.passages, arguments.seed):
        reader.start_question()
        answer = reader.decoder.prompts.encode(question.answer)
        sequential = reader.logits(reader.plain(question, question.passages), answer)
        rows = {"none": reader.logits(reader.plain(question, []), answer)}
        rows |= {"sequential": sequential}
        rows |= {
            name: reader.logits(reader.stored(question, method), answer)
            for name, method in settings.items()
        }
        print(f"question {len(tokens) + 1} of {arguments.questions}", file=sys.stderr)
        tokens.append(reader.plain(question, question.passages).prompt_tokens)
        for name, row in rows.items():
            gold = row[torch.arange(len(answer)), torch.tensor(answer)]
            loss[name].append(-float(gold.mean()))
            gap = sequential[0].exp() * (sequential[0] - row[0])
            divergence[name].append(float(gap.sum()))
    report({"seed": arguments.seed, **_figures(loss, divergence, tokens)})


def _figures(
    loss: dict[str, list[float]], divergence: dict[str, list[float]], tokens: list[int]
) -> dict[str, Any]:
    none, best = (statistics.fmean(loss[name]) for name in ("none", "sequential"))
    settings = {
        name: {
            "nll": round(statistics.fmean(values), 4),
            "recovered": round((none - statistics.fmean(values)) / (none - best), 4),
            "kl": round(statistics.fmean(divergence[name]), 4),
            "kl_median": round(statistics.median(divergence[name]), 4),
            "kl_max": round(max(divergence[name]), 4),
        }
        for name, values in loss.items()
    }
    return {
        "questions": len(tokens),
        "mean_prompt_tokens": round(statistics.fmean(tokens)),
        "settings": settings,
    }


if __name__ == "__main__":
    main()
