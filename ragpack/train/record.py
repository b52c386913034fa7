"""What a training leaves beside its weights: a record as JSON, and a model card."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ragpack.train.run import CHECKPOINT, Plan

__all__ = ["Trained", "finish"]

_PACKAGES = ("ragpack-middleware", "torch", "transformers")
_CARD = """\
# {method}: model card

{about}

| | |
|---|---|
| file | `{weights}`, {size:.2f} MB |
| base | {base} |
| data | {data} |
| plan | seed {seed}, {steps} steps of {batch} examples, highest rate {rate:g} |
| loss | {loss:.3f} over the last steps |
| held out | {metrics} |
| made with | {packages} |

    {command}
"""


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of a training.

    Args:
        plan: what it was.
        weights: the file to load.
        base: name of the model that it builds on.
        about: two sentences for the model card.
        data: digests of the files read, by name.
        loss: mean of the last steps.
        metrics: on held-out data, by name.
    """

    plan: Plan
    weights: Path
    base: str
    about: str
    data: Mapping[str, str]
    loss: float
    metrics: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The record, for JSON."""
        return {
            **asdict(self.plan),
            "weights": self.weights.name,
            "base": self.base,
            "data": dict(self.data),
            "loss": round(self.loss, 4),
            "metrics": dict(self.metrics),
            "packages": {name: version(name) for name in _PACKAGES},
        }


def finish(trained: Trained) -> None:
    """Write ``training.json`` and the card beside the weights; the checkpoint goes."""
    folder = trained.weights.parent
    record = json.dumps(trained.to_dict(), indent=2)
    (folder / "training.json").write_text(record + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(trained), encoding="utf-8")
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _card(trained: Trained) -> str:
    record = trained.to_dict()
    plan = trained.plan
    command = f"ragpack train {plan.method} --data DATA --output FOLDER"
    shown: dict[str, Any] = {
        "about": trained.about,
        "size": trained.weights.stat().st_size / 1e6,
        "data": ", ".join(f"`{name}`" for name in trained.data),
        "metrics": ", ".join(f"{name} {value:.3f}" for name, value in trained.metrics.items()),
        "packages": ", ".join(f"{name} {number}" for name, number in record["packages"].items()),
        "command": f"{command} --seed {plan.seed} --steps {plan.steps}",
    }
    return _CARD.format(**{**record, **shown})
