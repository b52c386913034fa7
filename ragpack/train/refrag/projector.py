"""Trains REFRAG's projector for a decoder that stays as it is."""

import random
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from ragpack.config import DEFAULT_DECODER, DEFAULT_ENCODER
from ragpack.models import (
    checkpoint_folder,
    load_causal_lm,
    load_encoder,
    resolve,
)
from ragpack.models.embeddings import input_embeddings
from ragpack.models.prompt import INSTRUCTION
from ragpack.models.prompt_tokens import PromptTokenizer
from ragpack.soft.encode import ChunkEncoder
from ragpack.soft.reader import SoftReader
from ragpack.train.refrag.curves import draw_curve
from ragpack.train.refrag.data import load_texts
from ragpack.train.refrag.lessons import Lessons
from ragpack.train.refrag.samples import Sampler
from ragpack.train.refrag.start import rarity, untrained
from ragpack.train.run import Plan, Run, Watch

__all__ = ["train"]

_DISTIL = 0.7


def train(
    data: Path,
    output: Path,
    *,
    encoder: str = DEFAULT_ENCODER,
    decoder: str = DEFAULT_DECODER,
    sizes: Sequence[int] = (4, 8, 16),
    chunk: int = 8,
    seed: int = 7,
    steps: int = 360,
    batch: int = 4,
    rate: float = 3e-4,
    inner: int = 512,
    policy_width: int = 128,
    device: str | None = None,
    watch: Watch | None = None,
) -> Path:
    """Train and write a checkpoint with its loss curve; resumes from ``output``.

    Args:
        data: the folder of training data, see :func:`load_texts`.
        output: folder for the checkpoint.
        encoder: text encoder, frozen.
        decoder: causal model, frozen.
        sizes: tokens of a chunk in training.
        chunk: tokens of a chunk unless a method says otherwise.
        seed: of the draws and of the initial weights.
        steps: updates.
        batch: samples a step.
        rate: highest learning rate.
        inner: width between the projector's layers.
        policy_width: width of the policy, which starts as query-cosine.
        device: where to train; a GPU where there is one.
        watch: told of each step.

    Returns:
        ``output``.
    """
    torch.manual_seed(seed)
    model, tokenizer = load_causal_lm(decoder, device, torch.float32)
    prompts = PromptTokenizer(tokenizer, INSTRUCTION)
    texts = load_texts(data)
    made = untrained(encoder, decoder, inner=inner, policy_width=policy_width, chunk=chunk)
    made.rarity.copy_(rarity(texts.some(seed), prompts, made.config.vocabulary))
    table = input_embeddings(checkpoint_folder(resolve(decoder)))
    chunks = ChunkEncoder(load_encoder(encoder, device), table, made.rarity)
    projector = made.projector.to(model.device)
    reader = SoftReader(model.requires_grad_(False), prompts)
    sampler = Sampler(texts, prompts, sizes, reader.repeat)
    lessons = Lessons(reader, chunks, projector)

    def loss(step: int) -> Tensor:
        draw = random.Random(f"{seed}/{step}")  # noqa: S311 - not for secrets
        kind, samples = sampler.step(step / steps, batch, draw)
        return lessons.loss(samples, distil=_DISTIL if kind == "continue" else 0.0)

    plan = Plan("refrag", seed, steps, batch, rate)
    run = Run(dict(projector.named_parameters()), plan, output)
    run.fit(count(), loss, watch)
    made.cpu().save(output)
    draw_curve(run.losses, output / "loss.png")
    return output
