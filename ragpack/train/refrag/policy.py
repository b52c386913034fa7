"""Trains the policy: which chunks to spell out, learned from what spelling out is worth.

Three ways. *answers*: the chunks that hold the answer are to be found among those of whole
passages; the decoder is not asked, so a step costs a hundredth of the others'. *regression*: the
gain of every chunk, spelled out alone, is computed and predicted. *grpo* (REFRAG, section 3; Shao
et al., 2024): a group of sets is drawn chunk by chunk without replacement, the reward is minus the
loss of the reference continuation (never of the model's own), and every draw is pushed up or down
by how much better its set did than the group. A group serves one update, so the ratio that PPO
clips is always one and there is nothing to clip.
"""

import random
from collections.abc import Sequence
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ragpack.soft.checkpoint import load_checkpoint
from ragpack.train.record import Trained, finish
from ragpack.train.refrag.curves import draw_curve
from ragpack.train.refrag.data import Asked, digests, load_texts
from ragpack.train.refrag.held_out import found
from ragpack.train.refrag.rewards import (
    advantages,
    answer_loss,
    drawn,
    log_probability,
    regression_loss,
    single,
)
from ragpack.train.refrag.samples import Sample, Sampler
from ragpack.train.refrag.scenes import Scenes
from ragpack.train.refrag.setup import Setup, set_up
from ragpack.train.run import Plan, Run, Watch, claim

__all__ = ["Way", "train_policy"]

Way = Literal["answers", "regression", "grpo"]

_ABOUT = "REFRAG's projector, with a policy that says which chunks to spell out for a question."
_RATES: dict[Way, float] = {"answers": 1e-3, "regression": 3e-4, "grpo": 3e-4}
_SCENES = 8
"""Questions a step of *answers*; the other ways have one."""
_PASSAGES = 600
"""Passages that *answers* draws from: encoding all of them would take most of the time."""
_GROUP = 8
_SHARE = 0.2
"""Share of the chunks that a drawn set holds."""


def train_policy(
    data: Path,
    checkpoint: Path,
    output: Path,
    *,
    way: Way = "answers",
    seed: int = 7,
    steps: int = 400,
    device: str | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train the policy of ``checkpoint``; the projector stays as it is.

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
    batch = _SCENES if way == "answers" else 1
    plan = Plan(f"refrag-policy --way {way}", seed, steps, batch, _RATES[way])
    sources = digests(data)
    claim(output, plan)
    setup = set_up(deepcopy(load_checkpoint(checkpoint)[0]), device)
    made, lessons = setup.checkpoint, _Lessons(data, setup, way)

    def loss(step: int) -> Tensor:
        torch.manual_seed(seed + step)
        draw = random.Random(f"{seed}/{step}")  # noqa: S311 - not for secrets
        return torch.stack([lessons.loss(draw) for _ in range(batch)]).mean()

    run = Run(dict(made.policy.requires_grad_(True).named_parameters()), plan, output)
    run.fit(count(), loss, watch)
    made.save(output)
    draw_curve(run.losses, output / "loss.png")
    weights, figures = output / "model.safetensors", found(data, setup)
    trained = Trained(plan, weights, made.config.decoder, _ABOUT, sources, run.recent_loss, figures)
    finish(trained)
    return trained


class _Lessons:
    """The policy's loss on one question, by the way of training."""

    def __init__(self, data: Path, setup: Setup, way: Way) -> None:
        texts = load_texts(data)
        chunk = setup.checkpoint.config.chunk
        self._setup, self._way, self._asked = setup, way, texts.questions
        self._scenes = Scenes(_questions_on(texts.questions, _PASSAGES), setup)
        self._sampler = Sampler(texts, setup.prompts, [chunk], setup.reader.repeat)

    def loss(self, draw: random.Random) -> Tensor:
        """Of a question that is drawn."""
        if self._way == "answers":
            scene = self._scenes.draw(draw)
            logits = self._setup.checkpoint.policy(scene.vectors, scene.query)
            return answer_loss(logits, scene.holds)
        asked = draw.choice(self._asked)
        chunk = self._setup.checkpoint.config.chunk
        return self._gain(asked, self._sampler.answered(asked, chunk, draw))

    def _gain(self, asked: Asked, sample: Sample) -> Tensor:
        """By what spelling out does for the decoder."""
        made, vectors = self._setup.checkpoint, self._setup.vectors([sample])
        with torch.no_grad():
            rows = made.projector(vectors)
        logits = made.policy(vectors, self._setup.query(asked.question))
        if self._way == "regression":
            return regression_loss(logits, self._setup.losses(sample, rows, single(len(vectors))))
        taken = max(1, round(_SHARE * len(vectors)))
        sets = [drawn(logits, taken) for _ in range(_GROUP)]
        masks = [np.isin(np.arange(len(vectors)), one) for one in sets]
        better = advantages(self._setup.losses(sample, rows, masks))
        chances = torch.stack([log_probability(logits, one) for one in sets])
        return -(better * chances).mean()


def _questions_on(asked: Sequence[Asked], count: int) -> list[Asked]:
    """The questions about some ``count`` of the passages."""
    passages = sorted({each.context for each in asked})
    draw = random.Random(0)  # noqa: S311 - not for secrets
    some = set(draw.sample(passages, min(count, len(passages))))
    return [each for each in asked if each.context in some]
