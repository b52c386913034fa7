"""The commands, gathered."""

from typing import Annotated

import typer

import ragpack
from ragpack.cli import bench, cache, train
from ragpack.cli.ask import ask
from ragpack.cli.console import talk_logs
from ragpack.cli.demo import demo
from ragpack.cli.doctor import doctor
from ragpack.cli.index import index
from ragpack.cli.pack import pack
from ragpack.cli.serve import serve

__all__ = ["app"]

app = typer.Typer(
    name="ragpack",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Packs retrieved passages into the least a decoder needs.",
)
for command in (demo, index, pack, ask, serve, doctor):
    app.command()(command)
app.add_typer(bench.app, name="bench")
app.add_typer(cache.app, name="cache")
app.add_typer(train.app, name="train")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(ragpack.__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    talk_logs()
