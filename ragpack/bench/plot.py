"""The figures as a picture: answers kept against words kept."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.figure import Figure

from ragpack.bench.quality import Row

__all__ = ["save_pareto"]


def save_pareto(rows: Sequence[Row], path: Path) -> None:
    """Draw each method's answers kept over its words kept, with 95 % intervals, as a PNG.

    Rows of one method stand together. Rows with a threshold are drawn as open marks.
    """
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    colours: dict[str, str] = {}
    for (method, selective), group in groupby(
        rows, key=lambda row: (row.method, row.min_relevance is not None)
    ):
        points = sorted(
            (words.value, answer.value, answer.value - answer.low, answer.high - answer.value)
            for row in group
            if (words := row.figures["words"]) and (answer := row.figures["answer"])
        )
        x, y, below, above = (
            [100 * value for value in column] for column in zip(*points, strict=True)
        )
        colour = colours.setdefault(method, f"C{len(colours)}")
        axes.errorbar(
            x,
            y,
            yerr=(below, above),
            label=f"{method}, with threshold" if selective else method,
            color=colour,
            marker="o",
            markersize=5,
            markerfacecolor="white" if selective else colour,
            linestyle=":" if selective else "-",
            linewidth=1.3,
            elinewidth=0.8,
            capsize=2,
        )
    axes.set_xlabel("words kept, %")
    axes.set_ylabel("questions whose answer is kept, %")
    axes.set_xlim(left=-2)
    axes.set_ylim(-2, 102)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path)
