"""Trains recomp-mini: RECOMP's extractive compressor on all-MiniLM-L6-v2.

Source: Xu, Shi, Choi, "RECOMP", ICLR 2024, section 3.1, and ``train_extractive_compressor.py`` of
the authors' repository: MultipleNegativesRankingLoss over dot products. Different here: low-rank
updates instead of all weights, hard negatives by answer string instead of by a reader's score, and
a scale of 20 instead of 1, because MiniLM's vectors have unit length.
"""

import random
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import cast

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import dot_score
from torch import Tensor, nn
from transformers import BertModel

from ragpack.config import DEFAULT_ENCODER
from ragpack.models import load_encoder, resolve
from ragpack.models.batches import token_batches
from ragpack.models.checkpoint import quiet_progress
from ragpack.models.device import best_device
from ragpack.models.encoder import SentenceEncoder
from ragpack.models.lora import save_lora
from ragpack.models.low_rank import LowRank, add_low_rank, upper_linears
from ragpack.train.exit_mini_data import excluded_texts, source_digests
from ragpack.train.held_out import accuracy, held_out_groups
from ragpack.train.recomp_mini_data import Triple, headed, load_triples
from ragpack.train.record import Trained, finish
from ragpack.train.run import Plan, Run, Watch, claim

__all__ = ["train"]

_FIRST_LAYER, _RANK = 3, 16
_SCALE = 20.0
_LONGEST = 100
"""Tokens, as in the paper; longer texts are cut."""
_BATCH_TOKENS = 1024
_POOL = 16
"""Batches whose triples are sorted by length together."""

_ABOUT = """\
Low-rank updates (LoRA, in the PEFT library's format) of the upper layers of all-MiniLM-L6-v2, so
that a sentence which answers a question has a large dot product with it. Load it with
`ContextPacker("recomp-mini", adapter="FOLDER")`."""


def train(
    data: Path,
    output: Path,
    *,
    seed: int = 7,
    steps: int = 200,
    exclude: Path | None = None,
    device: str | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train, and write the adapter, a record and a model card.

    Args:
        data: see :func:`ragpack.train.exit_mini_data.load_groups`.
        output: a new folder, or one with an unfinished run of the same plan, which is resumed.
        seed: see :class:`Plan`.
        steps: updates; the data are gone through again, with new negatives, as often as needed.
        exclude: questions and passages to keep out, see
            :func:`ragpack.train.exit_mini_data.excluded_texts`.
        device: where to train; a GPU where there is one.
        watch: told of each step.

    Raises:
        ConfigError: the data are not there, or ``output`` holds something else.
    """
    plan = Plan("recomp-mini", seed, steps, batch=48, rate=5e-4)
    sources = source_digests(data)
    claim(output, plan)
    torch.manual_seed(seed)
    model = _model(device or best_device())
    encoder = cast(BertModel, model[0].model)
    updates = add_low_rank(encoder, upper_linears(encoder, _FIRST_LAYER), _RANK)
    run = Run(_parameters(updates), plan, output)
    ranking = MultipleNegativesRankingLoss(model, scale=_SCALE, similarity_fct=dot_score)
    batches = _batches(data, plan, excluded_texts(exclude))
    run.fit(batches, partial(_loss, model, ranking), watch)
    weights = save_lora(updates, output, DEFAULT_ENCODER)
    trained = Trained(
        plan, weights, DEFAULT_ENCODER, _ABOUT, sources, run.recent_loss, _metrics(data, output)
    )
    finish(trained)
    return trained


def _model(device: str) -> SentenceTransformer:
    """In evaluation mode: without dropout, equal seeds give equal weights after a resume, too."""
    folder = str(resolve(DEFAULT_ENCODER).path)
    with quiet_progress():
        return SentenceTransformer(folder, device=device, local_files_only=True).eval()


def _parameters(updates: dict[str, LowRank]) -> dict[str, nn.Parameter]:
    return {
        f"{path}.{name}": part
        for path, update in updates.items()
        for name, part in update.named_parameters()
        if part.requires_grad
    }


def _loss(
    model: SentenceTransformer, ranking: MultipleNegativesRankingLoss, batch: Sequence[Triple]
) -> Tensor:
    """Cross entropy of each question's sentence among all sentences of the batch."""
    rows = [(one.question, one.positive, one.beside, one.near) for one in batch]
    columns = list(zip(*rows, strict=True))
    vectors = _vectors(model, list(chain(*columns)))
    none = torch.empty(0)  # this loss has no labels
    return ranking.compute_loss_from_embeddings(list(vectors.chunk(len(columns))), none)


def _vectors(model: SentenceTransformer, texts: Sequence[str]) -> Tensor:
    """Vectors [len(texts), d] with their gradients, in order; encoded in batches of one length."""
    rows = model.tokenizer(texts, truncation=True, max_length=_LONGEST)["input_ids"]
    batches = list(token_batches([len(row) for row in rows], _BATCH_TOKENS))
    parts = []
    for batch in batches:
        chosen = {"input_ids": [rows[number] for number in batch]}
        padded = model.tokenizer.pad(chosen, return_tensors="pt").to(model.device)
        parts.append(model(dict(padded))["sentence_embedding"])
    order = torch.tensor([number for batch in batches for number in batch])
    return torch.cat(parts)[order.argsort()]


def _batches(data: Path, plan: Plan, excluded: frozenset[str]) -> Iterator[list[Triple]]:
    """Batches of triples of similar length, in random order, epoch after epoch.

    No two triples of a batch share a sentence: each is a negative for all other questions.
    """
    for epoch in count(plan.seed):
        draw = random.Random(epoch)  # noqa: S311 - not for secrets
        triples = load_triples(data, epoch, excluded)
        for start in range(0, len(triples), _POOL * plan.batch):
            pool = sorted(triples[start : start + _POOL * plan.batch], key=_length)
            batches = [
                _unlike(pool[at : at + plan.batch]) for at in range(0, len(pool), plan.batch)
            ]
            draw.shuffle(batches)
            yield from batches


def _length(triple: Triple) -> int:
    return len(triple.positive)


def _unlike(triples: Sequence[Triple]) -> list[Triple]:
    """The triples that share no sentence with an earlier one."""
    seen: set[str] = set()
    found = []
    for triple in triples:
        texts = {triple.positive, triple.beside, triple.near}
        if seen.isdisjoint(texts):
            found.append(triple)
            seen |= texts
    return found


def _metrics(data: Path, adapter: Path) -> dict[str, float]:
    groups = held_out_groups(data)
    before, after = load_encoder(DEFAULT_ENCODER), load_encoder(DEFAULT_ENCODER, adapter=adapter)
    return {
        "accuracy": accuracy(groups, partial(_scores, after)),
        "accuracy untrained": accuracy(groups, partial(_scores, before)),
    }


def _scores(
    encoder: SentenceEncoder, query: str, titles: Sequence[str], texts: Sequence[Sequence[str]]
) -> list[list[float]]:
    """Dot products, in the shape of ``texts``."""
    asked = encoder.encode([query])[0]
    return [
        (encoder.encode([headed(title, text) for text in row]) @ asked).tolist()
        for title, row in zip(titles, texts, strict=True)
    ]
