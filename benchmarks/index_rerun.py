"""What it costs to index a corpus again: unchanged, with one passage in a hundred changed, pruned.

Each round starts with an empty embedded store and an empty folder, and runs four whole jobs (read,
keys, store, FAISS, save) with the encoder loaded: the corpus as it is, the same once more, with
every hundredth passage rewritten, and without those, pruned. Run from the repository's root:

    python benchmarks/index_rerun.py --runs 3 --passages 1000
"""

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import DATA, parser, report, spread

from ragpack.cli.demo import handbook
from ragpack.corpus import Corpus
from ragpack.index import IndexJob, IndexPlan
from ragpack.registry import open_store

EVERY = 100
Row = dict[str, Any]


def corpus(count: int) -> list[Row]:
    """Real passages where they are at hand, else the sample handbook."""
    path = DATA / "corpus.jsonl"
    if path.exists():
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()[:count]]
    with handbook() as sample:
        return [json.loads(line) for line in sample.read_text("utf-8").splitlines()[:count]]


def timed(rows: Sequence[Row], folder: Path, *, prune: bool = False) -> tuple[float, int]:
    """Seconds of a whole job, and how many artifacts it computed."""
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    start = time.perf_counter()
    job = IndexJob(IndexPlan(corpus=Corpus(path), folder=folder / "index", prune=prune))
    store = open_store(f"lmdb://{folder / 'store'}")
    done = job.run(store)
    store.close()
    return time.perf_counter() - start, done.summary.computed.total()


def one_round(rows: Sequence[Row]) -> dict[str, tuple[float, int]]:
    """The four jobs, one after another."""
    changed = [
        row | {"text": f"{row['text']} Corrected."} if n % EVERY == 0 else row
        for n, row in enumerate(rows)
    ]
    rest = [row for n, row in enumerate(changed) if n % EVERY]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {
            "new": timed(rows, folder),
            "unchanged": timed(rows, folder),
            "one_percent_changed": timed(changed, folder),
            "one_percent_pruned": timed(rest, folder, prune=True),
        }


def main() -> None:
    """Print the figures as JSON."""
    options = parser(__doc__)
    options.add_argument("--passages", type=int, default=1000)
    options.set_defaults(runs=2)
    arguments = options.parse_args()
    rows = corpus(arguments.passages)
    with tempfile.TemporaryDirectory() as name:
        timed(rows[:8], Path(name))  # loads the models
    rounds = [one_round(rows) for _ in range(arguments.runs)]
    arms = rounds[0]
    report(
        {
            "passages": len(rows),
            "seconds": {arm: spread([each[arm][0] for each in rounds]) for arm in arms},
            "computed": {arm: rounds[0][arm][1] for arm in arms},
            "share_of_new": {
                arm: round(statistics.median(each[arm][0] / each["new"][0] for each in rounds), 4)
                for arm in arms
            },
        }
    )


if __name__ == "__main__":
    main()
