"""exit-mini cold against the bare networks, and from the store.

Arms, in turn: ``cold`` computes every artifact of ten passages and selects from them; ``forward``
repeats the very network calls that ``cold`` made (the cross-encoder over query and passage, the
sentence encoder over every sentence), which no code around them can beat; ``cross_encoder`` is the
first of the two alone; ``stored`` is a whole request whose artifacts are in the store, with a
budget. From the repository's root:

    python benchmarks/exit_mini_speed.py --runs 15
"""

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from common import interleave, parser, report, spread
from transformers import BertModel

from ragpack import ContextPacker
from ragpack.cli.demo import handbook, questions
from ragpack.compressors.exit_mini import ExitMini
from ragpack.corpus import read_passages

Call = Callable[[], Any]


@contextmanager
def recorded() -> Iterator[list[tuple[BertModel, dict[str, Any]]]]:
    """Every call of a BERT encoder made inside, with its tensors."""
    plain, calls = BertModel.forward, []

    def forward(self: BertModel, **tensors: Any) -> Any:
        calls.append((self, tensors))
        return plain(self, **tensors)

    setattr(BertModel, "forward", forward)  # noqa: B010 - mypy lets no method be assigned
    try:
        yield calls
    finally:
        setattr(BertModel, "forward", plain)  # noqa: B010


def replay(calls: list[tuple[BertModel, dict[str, Any]]]) -> Call:
    """Repeats ``calls`` and nothing else."""

    def run() -> None:
        with torch.inference_mode():
            for model, tensors in calls:
                model(**tensors)

    return run


def main() -> None:
    """Time every arm in turn and print the ratios."""
    options = parser(__doc__)
    options.add_argument("--store", help="store URL; an embedded store in a temporary folder")
    options.add_argument("--passages", type=int, default=10)
    options.add_argument("--budget", type=int, default=400)
    chosen = options.parse_args()
    draw = random.Random(chosen.seed)
    with handbook() as corpus:
        passages = draw.sample(read_passages(corpus), chosen.passages)
    query = draw.choice(questions())["question"]
    method = ExitMini()
    method.compress(passages[:1], query)  # loads the models
    with recorded() as calls:
        method.compress(passages, query)
    first = calls[0][0]  # the sentence encoder
    with tempfile.TemporaryDirectory() as folder:
        store = chosen.store or f"lmdb://{folder}"
        with ContextPacker(method, store=store, budget=chosen.budget) as packer:
            packer.pack(query, passages)
            packer.flush()
            hits = packer.pack(query, passages).report.hits
            arms: dict[str, Call] = {
                "cold": lambda: method.select(query, passages, method.compress(passages, query)),
                "forward": replay(calls),
                "cross_encoder": replay([call for call in calls if call[0] is not first]),
                "stored": lambda: packer.pack(query, passages),
            }
            times = interleave(arms, chosen.runs)
    medians = {name: spread(values) for name, values in times.items()}
    report(
        {
            "passages": len(passages),
            "tokens": sum(tensors["input_ids"].numel() for _, tensors in calls),
            "hits": hits,
            "seed": chosen.seed,
            "milliseconds": medians,
            "cold_over_forward": round(medians["cold"]["median"] / medians["forward"]["median"], 3),
        }
    )


if __name__ == "__main__":
    main()
