"""Trains REFRAG's projector for a decoder that stays as it is, or with a low-rank update of it."""

import random
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn

from ragpack.config import DEFAULT_DECODER, DEFAULT_ENCODER
from ragpack.train.record import Trained, finish
from ragpack.train.refrag.curves import draw_curve
from ragpack.train.refrag.data import digests, load_texts
from ragpack.train.refrag.held_out import recovered
from ragpack.train.refrag.lessons import Lessons
from ragpack.train.refrag.samples import Sampler
from ragpack.train.refrag.setup import Setup, set_up
from ragpack.train.refrag.start import begin
from ragpack.train.run import Plan, Run, Watch, claim

__all__ = ["train"]

_ABOUT = (
    "A projector from chunks of decoder tokens (all-MiniLM-L6-v2 beside a bag of the decoder's own "
    "embeddings) to soft tokens, one a chunk. The decoder was frozen and is served as it is."
)
_WITH_LORA = (
    "A projector from chunks of decoder tokens to soft tokens, one a chunk, and a decoder with a "
    "low-rank update merged in, which reads them: `decoder`, beside the weights."
)
_DISTIL = 0.7


def train(
    data: Path,
    output: Path,
    *,
    encoder: str = DEFAULT_ENCODER,
    decoder: str = DEFAULT_DECODER,
    sizes: Sequence[int] = (4, 8),
    chunk: int = 8,
    seed: int = 7,
    steps: int = 300,
    batch: int = 4,
    lora: int = 0,
    device: str | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train, and write a checkpoint, its loss curve, a record and a model card.

    Args:
        data: see :func:`ragpack.train.refrag.data.load_texts`.
        output: a new folder, or one with an unfinished run of the same plan, which is resumed.
        encoder: the text encoder's name or path.
        decoder: the decoder's name or path.
        sizes: tokens of a chunk in training.
        chunk: tokens of a chunk unless a method says otherwise.
        seed: of the draws and of the first weights.
        steps: updates.
        batch: samples a step.
        lora: rank of an update of the decoder, which is written, merged, into ``output/decoder``,
            and is the decoder of the checkpoint then; 0 leaves the decoder as it is.
        device: where to train; a GPU where there is one.
        watch: told of each step.

    Raises:
        ConfigError: the data are not there, or ``output`` holds something else.
    """
    plan = Plan(f"refrag --lora {lora}" if lora else "refrag", seed, steps, batch, rate=1e-3)
    sources = digests(data)
    claim(output, plan)
    torch.manual_seed(seed)
    texts = load_texts(data)
    setup = set_up(begin(encoder, decoder, texts.some(seed), chunk), device, lora)
    sampler = Sampler(texts, setup.prompts, sizes, setup.reader.repeat)
    lessons = Lessons(setup)

    def loss(step: int) -> Tensor:
        draw = random.Random(f"{seed}/{step}")  # noqa: S311 - not for secrets
        kind, samples = sampler.step(step / steps, batch, draw)
        return lessons.loss(samples, distil=_DISTIL if kind == "continue" else 0.0)

    run = Run(_trained(setup), plan, output)
    run.fit(count(), loss, watch)
    if lora:
        setup.merge(output / "decoder")
    setup.checkpoint.save(output)
    draw_curve(run.losses, output / "loss.png")
    weights, figures = output / "model.safetensors", recovered(data, setup, sampler)
    about = _WITH_LORA if lora else _ABOUT
    trained = Trained(plan, weights, decoder, about, sources, run.recent_loss, figures)
    finish(trained)
    return trained


def _trained(setup: Setup) -> dict[str, nn.Parameter]:
    """The projector's parameters and those of the decoder's updates, by name."""
    parts = dict(setup.checkpoint.projector.named_parameters())
    for path, update in setup.updates.items():
        parts |= {f"{path}.down": update.down, f"{path}.up": update.up}
    return parts
