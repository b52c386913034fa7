"""``ragpack serve``: compression over HTTP."""

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragpack import config
from ragpack.cli.console import talk
from ragpack.cli.options import Store, Tokenizer, parse_settings
from ragpack.errors import ConfigError, RagpackError
from ragpack.models import resolve

if TYPE_CHECKING:
    from ragpack.service.keys import Key

__all__ = ["serve"]


def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 8000,
    store: Store = None,
    methods: Annotated[
        str | None, typer.Option("--methods", help="Methods to offer, comma-separated; all.")
    ] = None,
    indexes: Annotated[
        Path | None, typer.Option("--indexes", help="Folder of NAMESPACE/NAME index folders.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="TOML file of bearer keys, by their SHA-256.")
    ] = None,
    upstream: Annotated[
        str | None, typer.Option("--upstream", help="Base URL that answers chats, http://…/v1.")
    ] = None,
    everyone: Annotated[
        bool, typer.Option("--open", help="Let anyone in who reaches the address, without keys.")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of a method, METHOD.NAME=VALUE.")
    ] = None,
    encoder: Annotated[
        str, typer.Option("--encoder", help="Whose vectors an index holds: a name or a path.")
    ] = config.DEFAULT_ENCODER,
    encoder_process: Annotated[
        bool,
        typer.Option(help="Run encoders in a process of their own: more requests, more memory."),
    ] = True,
    tokenizer: Tokenizer = config.DEFAULT_DECODER,
) -> None:
    """Serve compression over HTTP until SIGTERM or Ctrl-C; requests under way are finished."""
    from ragpack.service.logs import log_as_json
    from ragpack.service.server import make_server
    from ragpack.service.settings import Settings

    ring = _keys(keys)
    if not ring and not everyone and not _only_here(host):
        raise ConfigError(
            f"anyone who reaches {host} could use this service: give --keys FILE (or RAGPACK_KEYS),"
            " or say --open"
        )
    chosen = Settings(
        store=store or config.store_url(),
        tokenizer=tokenizer,
        encoder=encoder,
        encoder_process=encoder_process,
        methods=tuple(name for name in methods.split(",") if name) if methods else None,
        method_settings=_by_method(settings or []),
        indexes=indexes,
        keys=tuple(ring),
        upstream=upstream,
    )
    for name in (encoder, tokenizer):  # a wrong one is said before anything is loaded
        resolve(name)
    server = make_server(chosen, host, port)
    log_as_json()
    talk.print(f"starting on http://{host}:{port}; Ctrl-C stops", style="dim")
    try:
        server.run()
    except SystemExit as stop:  # uvicorn's way to say that it could not start; the log has why
        raise RagpackError(
            f"the service could not start on http://{host}:{port}, the log above has why; if "
            "another program listens there, give another --port"
        ) from stop


def _keys(file: Path | None) -> list["Key"]:
    from ragpack.service.keys import keys_from_file, keys_from_text

    if file is not None:
        return keys_from_file(file)
    return keys_from_text(config.service_keys())


def _by_method(given: list[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, value in parse_settings(given).items():
        method, dot, setting = name.partition(".")
        if not dot:
            raise ConfigError(f"--set takes METHOD.NAME=VALUE, not {name!r}")
        found.setdefault(method, {})[setting] = value
    return found


def _only_here(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
