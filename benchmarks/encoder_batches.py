"""What a text costs an encoder on a CPU, alone and among others, against sentence-transformers.

Sentences of the corpus as they come. Three ways to run them: all lengths in one row with nothing
padded (``packed``, ragpack's), texts of one length at a time (``by length``, what ragpack does with
architectures that it cannot pack), and sentence-transformers' own ``encode``, which pads. The first
two give equal bits, which is checked. Run from the repository's root:

    OMP_NUM_THREADS=1 python benchmarks/encoder_batches.py --runs 10
"""

import itertools
import random
from typing import Any

import numpy as np
from common import corpus, interleave, parser, report, spread
from sentence_transformers import SentenceTransformer

from ragpack.models import load_encoder, resolve
from ragpack.sentences import sentence_spans

SIZES = (1, 8, 64)


def main() -> None:
    """Time each way at each number of texts."""
    chosen = parser(__doc__).parse_args()
    spans = ((p, sentence_spans(p.text, "en")) for p in corpus(1500))
    sentences = [p.text[start:end] for p, own in spans for start, end in own]
    random.Random(chosen.seed).shuffle(sentences)
    endless = itertools.cycle(sentences)
    ours = load_encoder("all-minilm-l6-v2", device="cpu")
    theirs = SentenceTransformer(str(resolve("all-minilm-l6-v2").path), device="cpu")

    def encode(texts: list[str], packs: bool) -> Any:
        ours._packs = packs
        return ours.encode(texts)

    figures: dict[str, Any] = {}
    for size in SIZES:
        drawn = [list(itertools.islice(endless, size)) for _ in range(chosen.runs + 1)]
        assert all(np.array_equal(encode(t, True), encode(t, False)) for t in drawn[:3])
        packed, equal, padded = (itertools.cycle(drawn) for _ in range(3))
        arms = {
            "packed": lambda texts=packed: encode(next(texts), True),
            "by length": lambda texts=equal: encode(next(texts), False),
            "sentence-transformers": lambda texts=padded: theirs.encode(
                next(texts), show_progress_bar=False
            ),
        }
        times = interleave(arms, chosen.runs)
        figures[f"{size} texts, ms each"] = {
            name: spread([value / size for value in values]) for name, values in times.items()
        }
    report(figures)


if __name__ == "__main__":
    main()
