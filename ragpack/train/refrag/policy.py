"""Trains the policy: which chunks to spell out, learned from what spelling out is worth.

Two ways. *regression*: the gain of every chunk, spelled out alone, is computed and predicted.
*grpo* (REFRAG, section 3; Shao et al., 2024): a group of sets is drawn chunk by chunk without
replacement, the reward is minus the loss of the reference continuation (never of the model's own),
and every draw is pushed up or down by how much better its set did than the group. A group serves
one update, so the ratio that PPO clips is always one and there is nothing to clip.
"""

import random
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ragpack.soft.checkpoint import load_checkpoint
from ragpack.soft.chunks import cut
from ragpack.train.record import Trained, finish
from ragpack.train.refrag.curves import draw_curve
from ragpack.train.refrag.data import digests, load_texts
from ragpack.train.refrag.rewards import (
    advantages,
    drawn,
    log_probability,
    regression_loss,
    single,
)
from ragpack.train.refrag.samples import Sample, Sampler
from ragpack.train.refrag.setup import Setup, set_up
from ragpack.train.run import Plan, Run, Watch, claim

__all__ = ["Way", "train_policy"]

Way = Literal["regression", "grpo"]

_ABOUT = "REFRAG's projector, with a policy that says which chunks to spell out for a question."
_GROUP = 8
_SHARE = 0.2
"""Share of the chunks that a drawn set holds."""


def train_policy(
    data: Path,
    checkpoint: Path,
    output: Path,
    *,
    way: Way = "regression",
    seed: int = 7,
    steps: int = 200,
    device: str | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train the policy of ``checkpoint``, a question a step; the projector stays as it is.

    Args:
        data: see :func:`ragpack.train.refrag.data.load_texts`.
        checkpoint: folder of the projector to work with.
        output: a new folder, or one with an unfinished run of the same plan, which is resumed.
        way: how, see above.
        seed: of the draws.
        steps: updates.
        device: where to train; a GPU where there is one.
        watch: told of each step.

    Raises:
        ConfigError: the data or the checkpoint are not there, or ``output`` holds something else.
    """
    plan = Plan(f"refrag-policy-{way}", seed, steps, batch=1, rate=3e-4)
    sources = digests(data)
    claim(output, plan)
    texts, setup = load_texts(data), set_up(load_checkpoint(checkpoint)[0], device)
    made = setup.checkpoint
    sampler = Sampler(texts, setup.prompts, [made.config.chunk], setup.reader.repeat)

    def loss(step: int) -> Tensor:
        torch.manual_seed(seed + step)
        draw = random.Random(f"{seed}/{step}")  # noqa: S311 - not for secrets
        asked = draw.choice(texts.questions)
        return _loss(setup, sampler.answered(asked, made.config.chunk, draw), asked.question, way)

    run = Run(dict(made.policy.requires_grad_(True).named_parameters()), plan, output)
    run.fit(count(), loss, watch)
    made.save(output)
    draw_curve(run.losses, output / "loss.png")
    weights = output / "model.safetensors"
    trained = Trained(plan, weights, made.config.decoder, _ABOUT, sources, run.recent_loss, {})
    finish(trained)
    return trained


def _loss(setup: Setup, sample: Sample, question: str, way: Way) -> Tensor:
    made = setup.checkpoint
    tokens = setup.prompts.tokens_before_text(question)
    query = setup.encoder.encode_one(cut(question, tokens, made.config.chunk))
    vectors = setup.vectors([sample])
    with torch.no_grad():
        rows = made.projector(vectors)
    logits = made.policy(vectors, torch.from_numpy(query).to(vectors.device))
    if way == "regression":
        return regression_loss(logits, setup.losses(sample, rows, single(len(vectors))))
    taken = max(1, round(_SHARE * len(vectors)))
    sets = [drawn(logits, taken) for _ in range(_GROUP)]
    masks = [np.isin(np.arange(len(vectors)), one) for one in sets]
    better = advantages(setup.losses(sample, rows, masks))
    chances = torch.stack([log_probability(logits, one) for one in sets])
    return -(better * chances).mean()
