"""The loss curve of a training, as a picture."""

from collections.abc import Sequence
from pathlib import Path

__all__ = ["draw_curve"]

_WINDOW = 20


def draw_curve(losses: Sequence[float], path: Path) -> None:
    """Draw the loss of every step and its running mean into a PNG at ``path``.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        from ragpack.registry import missing_extra

        raise missing_extra(error, "the loss curve") from error
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss, nats a token")
    axes.plot(losses, linewidth=0.5, alpha=0.5, label="each step")
    means = [sum(part) / len(part) for part in _windows(losses)]
    axes.plot(means, linewidth=1.5, label=f"mean of the last {_WINDOW}")
    axes.legend()
    figure.savefig(path, dpi=110)


def _windows(losses: Sequence[float]) -> list[Sequence[float]]:
    return [losses[max(0, end - _WINDOW) : end] for end in range(1, len(losses) + 1)]
