"""Trains exit-mini: low-rank updates and a head on all-MiniLM-L6-v2.

The loss of a group (a question, its passage, a near miss) has two parts: a softmax over all
sentences of both passages, which makes scores comparable across passages, and a binary cross
entropy, which makes them probabilities.
"""

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, islice
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ragpack.config import DEFAULT_ENCODER
from ragpack.models import resolve
from ragpack.models.sentence_scorer import SentenceScorer
from ragpack.models.sentence_windows import (
    Window,
    collate,
    sentence_means,
    special_ids,
    windows,
)
from ragpack.train.exit_mini_data import HELD_OUT, IGNORE, Group, Sample, load_groups

__all__ = ["train"]

logger = logging.getLogger(__name__)

_QUESTION_TOKENS, _TITLE_TOKENS, _TEXT_TOKENS = 40, 12, 72
_WARM_UP = 0.05
_POSITIVE_WEIGHT = 3.0
_POOL = 16
"""Batches whose groups are sorted by length together."""


@dataclass(frozen=True, slots=True)
class _Item:
    """A group as tokens: one window a passage, and the labels of the sentences in each."""

    windows: list[Window]
    labels: list[list[int]]


def train(
    data: Path,
    output: Path,
    *,
    seed: int = 7,
    steps: int = 800,
    batch: int = 8,
    learning_rate: float = 8e-4,
    save_every: int = 100,
    device: str = "cpu",
) -> Path:
    """Train and write ``exit-mini.safetensors``; resumes from ``output`` where it stopped.

    Args:
        data: the folder of training data, see :func:`load_groups`.
        output: folder for the weights and for checkpoints.
        seed: of the data's order, the negatives and the initial weights.
        steps: updates; the data are gone through again, with new negatives, as often as needed.
        batch: groups a step.
        learning_rate: the highest; rises over the first steps, then falls to zero.
        save_every: steps between checkpoints.
        device: where to train.

    Returns:
        The path of the weights.
    """
    torch.manual_seed(seed)
    folder = resolve(DEFAULT_ENCODER).path
    scorer = SentenceScorer.untrained(folder).to(device)
    batches = islice(_batches(data, folder, seed, batch), steps)
    run = _Run(scorer, output, steps, learning_rate)
    done = run.resume()
    for step, items in enumerate(batches):
        if step < done:
            continue
        run.step(step, items)
        if (step + 1) % save_every == 0:
            run.checkpoint(step + 1)
    weights = output / "exit-mini.safetensors"
    scorer.save(weights)
    return weights


class _Run:
    """A scorer with its optimiser, its place in the schedule and its checkpoint."""

    def __init__(self, scorer: SentenceScorer, output: Path, steps: int, rate: float) -> None:
        output.mkdir(parents=True, exist_ok=True)
        self._scorer, self._steps, self._rate = scorer, steps, rate
        self._path = output / "checkpoint.safetensors"
        self._named = scorer.trained()
        self._optimizer = torch.optim.AdamW(self._named.values(), lr=rate, weight_decay=0.01)
        self._mean: float | None = None

    def step(self, number: int, items: Sequence[_Item]) -> None:
        """One update."""
        warm = self._steps * _WARM_UP
        share = min((number + 1) / warm, (self._steps - number) / (self._steps - warm))
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * share
        loss = _loss(self._scorer, items)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._named.values(), 1.0)
        self._optimizer.step()
        value = loss.item()
        self._mean = value if self._mean is None else 0.98 * self._mean + 0.02 * value
        if (number + 1) % 20 == 0:
            logger.info("step %d of %d, loss %.3f", number + 1, self._steps, self._mean)

    def checkpoint(self, step: int) -> None:
        """Keep the parameters and the optimiser's moments; replaces the last checkpoint."""
        tensors = {f"w/{name}": part.detach() for name, part in self._named.items()}
        for name, part in self._named.items():
            state = self._optimizer.state[part]
            tensors |= {f"{key}/{name}": state[key] for key in ("exp_avg", "exp_avg_sq", "step")}
        partial = self._path.with_suffix(".partial")
        save_file(tensors, partial, {"step": str(step)})
        partial.replace(self._path)

    def resume(self) -> int:
        """Take up the last checkpoint; returns the step to go on with."""
        if not self._path.is_file():
            return 0
        with safe_open(self._path, "pt") as file:
            step = int(file.metadata()["step"])
        tensors = load_file(self._path)
        for name, part in self._named.items():
            part.data.copy_(tensors[f"w/{name}"])
            keys = ("exp_avg", "exp_avg_sq", "step")
            self._optimizer.state[part] = {key: tensors[f"{key}/{name}"] for key in keys}
        logger.info("resuming at step %d", step)
        return step


def _loss(scorer: SentenceScorer, items: Sequence[_Item]) -> Tensor:
    device = scorer.match.device
    ids, types, mask, owners = (
        part.to(device) for part in collate([window for item in items for window in item.windows])
    )
    rows = [row for item in items for row in item.labels]
    labels = torch.tensor([label for row in rows for label in row], device=device)
    starts = torch.tensor([0, *accumulate(map(len, rows))][:-1], device=device)
    owners = torch.where(owners >= 0, owners + starts.unsqueeze(1), owners)
    kept = sentence_means(scorer(ids, types, mask).sigmoid(), owners, len(labels))
    logits = torch.logit(kept.clamp(1e-5, 1 - 1e-5))
    known = labels != IGNORE
    binary = binary_cross_entropy_with_logits(
        logits[known],
        labels[known].float(),
        pos_weight=torch.tensor(_POSITIVE_WEIGHT, device=device),
    )
    return binary + _listwise(logits, labels, [sum(map(len, item.labels)) for item in items])


def _listwise(logits: Tensor, labels: Tensor, counts: list[int]) -> Tensor:
    """Mean cross entropy of the answering sentence among those of its group."""
    losses = []
    for scores, marks in zip(torch.split(logits, counts), torch.split(labels, counts), strict=True):
        if (marks == 1).any():
            rivals = scores[marks != IGNORE].logsumexp(0)
            losses.append(rivals - scores[marks == 1].logsumexp(0))
    return torch.stack(losses).mean() if losses else logits.new_zeros(())


def _batches(data: Path, model: Path, seed: int, batch: int) -> Iterator[list[_Item]]:
    """Batches of groups of similar length, in random order, epoch after epoch."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for epoch in count():
        draw = random.Random(seed + epoch)  # noqa: S311 - not for secrets
        groups = [
            group for group in load_groups(data, seed + epoch) if group.article not in HELD_OUT
        ]
        for start in range(0, len(groups), _POOL * batch):
            items = [
                _item(group, tokenizer, draw) for group in groups[start : start + _POOL * batch]
            ]
            pool = sorted(items, key=_length)
            rows = [pool[at : at + batch] for at in range(0, len(pool), batch)]
            draw.shuffle(rows)
            yield from rows


def _length(item: _Item) -> int:
    return max(len(window.ids) for window in item.windows)


def _item(group: Group, tokenizer: Tokenizer, draw: random.Random) -> _Item:
    question = _tokens(tokenizer, group.question)[:_QUESTION_TOKENS]
    specials = special_ids(tokenizer)
    limit = _QUESTION_TOKENS + _TITLE_TOKENS + _TEXT_TOKENS + 3
    found, labels = [], []
    for sample in group.samples:
        title = _tokens(tokenizer, sample.title)[:_TITLE_TOKENS]
        sentences, marks = _excerpt(tokenizer, sample, draw)
        found += list(windows(question, title, sentences, specials, limit))
        labels.append(marks)
    return _Item(found, labels)


def _excerpt(
    tokenizer: Tokenizer, sample: Sample, draw: random.Random
) -> tuple[list[list[int]], list[int]]:
    """A run of sentences that fits the window and holds the answering one, if there is one."""
    tokens = [_tokens(tokenizer, sentence) for sentence in sample.sentences]
    first = last = next(
        (n for n, label in enumerate(sample.labels) if label == 1),
        draw.randrange(len(tokens)),
    )
    size = len(tokens[first])
    while True:
        grown = [n for n in (first - 1, last + 1) if 0 <= n < len(tokens)]
        fits = [n for n in grown if size + len(tokens[n]) <= _TEXT_TOKENS]
        if not fits:
            break
        taken = draw.choice(fits)
        first, last, size = min(first, taken), max(last, taken), size + len(tokens[taken])
    sentences = [row[:_TEXT_TOKENS] for row in tokens[first : last + 1]]
    return sentences, list(sample.labels[first : last + 1])


def _tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
