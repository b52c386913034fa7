"""``ragpack train``: the small checkpoints that ragpack ships, made again or on other data.

A new training is a function ``train(data, output, …, watch) -> Trained`` in ``ragpack/train`` and a
command below that hands it to :func:`_run`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ragpack.cli.console import emit, talk
from ragpack.cli.options import Json
from ragpack.cli.progress import progress
from ragpack.config import DEFAULT_DECODER

if TYPE_CHECKING:  # training imports torch, which takes seconds
    from ragpack.train.record import Trained

__all__ = ["app", "exit_mini", "recomp_mini", "refrag", "refrag_policy"]

app = typer.Typer(no_args_is_help=True, help="Train the small checkpoints that ragpack ships.")

Data = Annotated[Path, typer.Option("--data", help="Folder of training data.")]
Output = Annotated[
    Path, typer.Option("--output", help="New folder for the weights, or one to resume in.")
]
Seed = Annotated[int, typer.Option("--seed", help="Equal seeds give equal weights.")]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Updates of the weights.")]
Exclude = Annotated[
    Path | None,
    typer.Option("--exclude", help="JSON Lines of evaluation questions to keep out of training."),
]
Device = Annotated[str | None, typer.Option("--device", help="Such as cpu or cuda.")]


@app.command("exit-mini")
def exit_mini(
    data: Data,
    output: Output,
    seed: Seed = 7,
    steps: Steps = 800,
    exclude: Exclude = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Train the cross-encoder of exit-mini on questions with their passages."""
    from ragpack.train.exit_mini import train

    work = partial(train, data, output, seed=seed, steps=steps, exclude=exclude, device=device)
    _run(work, steps, json)


@app.command("recomp-mini")
def recomp_mini(
    data: Data,
    output: Output,
    seed: Seed = 7,
    steps: Steps = 200,
    exclude: Exclude = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Train the sentence encoder of recomp-mini on questions and the sentences that answer."""
    from ragpack.train.recomp_mini import train

    work = partial(train, data, output, seed=seed, steps=steps, exclude=exclude, device=device)
    _run(work, steps, json)


@app.command("refrag")
def refrag(
    data: Data,
    output: Output,
    seed: Seed = 7,
    steps: Steps = 300,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples a step.")] = 4,
    decoder: Annotated[str, typer.Option("--decoder", help="Name or path.")] = DEFAULT_DECODER,
    lora: Annotated[
        int,
        typer.Option("--lora", min=0, help="Rank of an update of the decoder; 0 for none."),
    ] = 0,
    device: Device = None,
    json: Json = False,
) -> None:
    """Train the projector of refrag: soft tokens that a decoder reads in the place of chunks."""
    from ragpack.train.refrag.projector import train

    settings: dict[str, Any] = {"seed": seed, "steps": steps, "batch": batch, "device": device}
    _run(partial(train, data, output, decoder=decoder, lora=lora, **settings), steps, json)


@app.command("refrag-policy")
def refrag_policy(
    data: Data,
    output: Output,
    checkpoint: Annotated[Path, typer.Option("--checkpoint", help="Folder of the projector.")],
    way: Annotated[
        Literal["answers", "regression", "grpo"], typer.Option("--way", help="How to learn.")
    ] = "answers",
    seed: Seed = 7,
    steps: Steps = 400,
    device: Device = None,
    json: Json = False,
) -> None:
    """Train the policy of refrag: which chunks to spell out for a question."""
    from ragpack.train.refrag.policy import train_policy

    settings: dict[str, Any] = {"seed": seed, "steps": steps, "device": device}
    _run(partial(train_policy, data, checkpoint, output, way=way, **settings), steps, json)


def _run(work: Callable[..., "Trained"], steps: int, json: bool) -> None:
    """Do ``work(watch=…)`` under a progress bar, and show what came of it."""
    with progress("training", steps) as show:

        def watch(done: int, loss: float) -> None:
            show(done, f"{done} of {steps}, loss {loss:.3f}")

        trained = work(watch=watch)
    if json:
        emit(trained.to_dict())
        return
    figures = ", ".join(f"{name} {value:.3f}" for name, value in trained.metrics.items())
    talk.print(f"{trained.weights}: loss {trained.loss:.3f}, held out: {figures}", markup=False)
