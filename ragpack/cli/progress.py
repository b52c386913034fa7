"""How far a command is: a bar on stderr, or a line every ten seconds where that is no terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from ragpack.cli.console import talk

__all__ = ["Show", "duration", "progress"]

_SECONDS_BETWEEN_LINES = 10.0
_BAR = 24  # characters; the words need the room


class Show(Protocol):
    """Shows how far the work is."""

    def __call__(self, done: float, state: str = "") -> None:
        """``done`` of the total, and words about it."""


class _State(ProgressColumn):
    """The words about the work: with the bar, all that gives way where a terminal is narrow."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=False))

    def render(self, task: Task) -> Text:
        return Text(task.fields["state"], no_wrap=True, overflow="ellipsis")


@contextmanager
def progress(what: str, total: float) -> Iterator[Show]:
    """A bar named ``what`` over ``total``, of any unit; yields what is to be called as it goes."""
    bar = Progress(
        TextColumn(what),
        BarColumn(_BAR),
        TaskProgressColumn(table_column=Column(no_wrap=True)),
        _State(),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        console=talk,
        disable=not talk.is_terminal,
    )
    task = bar.add_task("", total=total, state="")
    said = time.monotonic()

    def show(done: float, state: str = "") -> None:
        nonlocal said
        bar.update(task, completed=done, state=state)
        now = time.monotonic()
        if not talk.is_terminal and now - said >= _SECONDS_BETWEEN_LINES:
            said = now
            rest = bar.tasks[task].time_remaining
            parts = [f"{bar.tasks[task].percentage:.0f}%", state]
            parts += [] if rest is None else [f"{duration(rest)} left"]
            talk.print(f"{what}: {', '.join(parts)}", soft_wrap=True, markup=False)

    with bar:
        yield show


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
