"""Trains exit-mini: low-rank updates and a head on all-MiniLM-L6-v2.

The loss of a group (a question, its passage, a near miss) has two parts: a softmax over all
sentences of both passages, which makes scores comparable across passages, and a binary cross
entropy, which makes them probabilities.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ragpack.config import DEFAULT_ENCODER
from ragpack.models import SHIPPED_ADAPTER, load_encoder, resolve
from ragpack.models.device import best_device
from ragpack.models.sentence_judge import SentenceJudge
from ragpack.models.sentence_scorer import SentenceScorer
from ragpack.models.sentence_windows import (
    Window,
    collate,
    sentence_means,
    special_ids,
    windows,
)
from ragpack.train.exit_mini_data import (
    IGNORE,
    Group,
    Sample,
    excluded_texts,
    source_digests,
    training_groups,
)
from ragpack.train.held_out import accuracy, held_out_groups
from ragpack.train.record import Trained, finish
from ragpack.train.run import Plan, Run, Watch, claim

__all__ = ["train"]

_QUESTION_TOKENS, _TITLE_TOKENS, _TEXT_TOKENS = 40, 12, 72
_POSITIVE_WEIGHT = 3.0
_POOL = 16
"""Batches whose groups are sorted by length together."""

_ABOUT = """\
Low-rank updates (LoRA) of the upper layers of all-MiniLM-L6-v2 with a small head: a cross-encoder
that scores every sentence of a passage under a query in one pass. Load it with
`ContextPacker("exit-mini", weights="exit-mini.safetensors")`."""


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
    exclude: Path | None = None,
    device: str | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train, and write ``exit-mini.safetensors``, a record and a model card.

    Args:
        data: the folder of training data, see :func:`load_groups`.
        output: a new folder, or one with an unfinished run of the same plan, which is resumed.
        seed: see :class:`Plan`.
        steps: updates; the data are gone through again, with new negatives, as often as needed.
        exclude: questions and passages to keep out, see :func:`excluded_texts`.
        device: where to train; a GPU where there is one.
        watch: told of each step.

    Raises:
        ConfigError: the data are not there, or ``output`` holds something else.
    """
    plan = Plan("exit-mini", seed, steps, batch=8, rate=8e-4)
    sources = source_digests(data)
    claim(output, plan)
    torch.manual_seed(seed)
    folder = resolve(DEFAULT_ENCODER).path
    scorer = SentenceScorer.untrained(folder).to(device or best_device())
    run = Run(scorer.trained(), plan, output)
    batches = _batches(data, folder, plan, excluded_texts(exclude))
    run.fit(batches, lambda items: _loss(scorer, items), watch)
    weights = output / "exit-mini.safetensors"
    scorer.save(weights)
    trained = Trained(
        plan, weights, DEFAULT_ENCODER, _ABOUT, sources, run.recent_loss, _metrics(data, weights)
    )
    finish(trained)
    return trained


def _metrics(data: Path, weights: Path) -> dict[str, float]:
    """As the method scores: with the encoder of recomp-mini beside the cross-encoder."""
    judge = SentenceJudge.load(weights, load_encoder(DEFAULT_ENCODER, adapter=SHIPPED_ADAPTER))
    return {"accuracy": accuracy(held_out_groups(data), judge.scores)}


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


def _batches(
    data: Path, model: Path, plan: Plan, excluded: frozenset[str]
) -> Iterator[list[_Item]]:
    """Batches of groups of similar length, in random order, epoch after epoch."""
    batch = plan.batch
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for epoch in count(plan.seed):
        draw = random.Random(epoch)  # noqa: S311 - not for secrets
        groups = training_groups(data, epoch, excluded)
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
