"""The loop that every training shares: schedule, clipping, checkpoints to resume from."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ragpack.errors import ConfigError

__all__ = ["CHECKPOINT", "Plan", "Run", "Watch", "claim"]

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")
Watch = Callable[[int, float], None]
"""Called after each step with the number of steps done and the mean loss of late."""

CHECKPOINT = "checkpoint.safetensors"
_SAVE_EVERY = 50
_RECENT = 50
_WARM_UP = 0.05
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True, slots=True)
class Plan:
    """What the weights depend on beside the data and the machine.

    ``batch`` is the number of examples a step, ``rate`` the highest learning rate: it rises over
    the first steps, then falls to zero. ``seed`` is that of the data's order, the negatives and
    the first weights.

    Raises:
        ConfigError: ``steps`` or ``batch`` below 1.
    """

    method: str
    seed: int
    steps: int
    batch: int
    rate: float

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1:
            raise ConfigError(f"steps and batch must be at least 1: {self}")

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warm = max(1.0, self.steps * _WARM_UP)
        left = (self.steps - step) / max(1.0, self.steps - warm)
        return self.rate * min((step + 1) / warm, left)


def claim(folder: Path, plan: Plan) -> None:
    """Make ``folder``, or find an unfinished run of ``plan`` in it.

    The run may have been begun for another number of steps: it then ends sooner or later, and its
    rate falls to zero over what is left.

    Raises:
        ConfigError: there is something else in it, or a run that is past the plan's last step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / CHECKPOINT
    if not checkpoint.is_file():
        if any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty: choose a new folder for the weights")
        return
    with safe_open(checkpoint, "pt") as file:
        begun, done = json.loads(file.metadata()["plan"]), len(file.get_tensor("losses"))
    if begun | {"steps": plan.steps} != asdict(plan):
        raise ConfigError(
            f"{folder} holds an unfinished run of another plan, {begun}: resume that one, or "
            "choose a new folder"
        )
    if done > plan.steps:
        raise ConfigError(f"{folder} holds a run that is past {plan.steps} steps: {done} are done")


class Run:
    """Parameters under training, with their optimiser and their place in the plan.

    Args:
        parameters: what is trained, by name.
        plan: how.
        folder: claimed; holds the checkpoint.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.losses: list[float] = []
        self._named = dict(parameters)
        self._path = folder / CHECKPOINT
        self._optimizer = torch.optim.AdamW(self._named.values(), lr=plan.rate, weight_decay=0.01)

    def fit(
        self,
        batches: Iterable[Batch],
        loss: Callable[[Batch], Tensor],
        watch: Watch | None = None,
    ) -> None:
        """Go through the steps that the checkpoint leaves to do.

        Args:
            batches: of all steps; those done are skipped.
            loss: of a batch.
            watch: told of each step.
        """
        self._resume()
        done = len(self.losses)
        for step, batch in enumerate(islice(batches, self.plan.steps)):
            if step < done:
                continue
            self._update(step, loss(batch))
            if watch is not None:
                watch(step + 1, self.recent_loss)
            if (step + 1) % _SAVE_EVERY == 0:
                self._save()

    @property
    def recent_loss(self) -> float:
        """Mean loss of the last 50 steps."""
        recent = self.losses[-_RECENT:]
        return sum(recent) / len(recent)

    def _update(self, step: int, loss: Tensor) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self.plan.rate_at(step)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._named.values(), 1.0)
        self._optimizer.step()
        self.losses.append(loss.item())

    def _save(self) -> None:
        """Write parameters, moments and losses; replaces the last checkpoint."""
        tensors = {f"weight/{name}": part.detach() for name, part in self._named.items()}
        for name, part in self._named.items():
            state = self._optimizer.state[part]
            tensors |= {f"{key}/{name}": state[key] for key in _MOMENTS}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        partial = self._path.with_suffix(".partial")
        save_file(tensors, partial, {"plan": json.dumps(asdict(self.plan))})
        partial.replace(self._path)

    def _resume(self) -> None:
        if not self._path.is_file():
            return
        tensors = load_file(self._path)
        self.losses = tensors["losses"].tolist()
        for name, part in self._named.items():
            part.data.copy_(tensors[f"weight/{name}"])
        state = self._optimizer.state_dict()
        state["state"] = {
            number: {key: tensors[f"{key}/{name}"] for key in _MOMENTS}
            for number, name in enumerate(self._named)
        }
        self._optimizer.load_state_dict(state)  # moves the moments to the parameters' device
        logger.info("resuming after %d steps", len(self.losses))
