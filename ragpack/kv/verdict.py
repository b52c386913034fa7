"""The gate's verdict on a model, remembered by what the model is."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers

from ragpack.config import home
from ragpack.digest import digest_fields
from ragpack.errors import UnsupportedModel
from ragpack.kv.gate import GateRow, run_gate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["judge", "require_passed"]

_log = logging.getLogger(__name__)
_VERSION = "1"


def judge(model: PreTrainedModel, weights: str, *, again: bool = False) -> list[GateRow]:
    """The exactness matrix of a model: the remembered one, or a fresh one that is remembered.

    A verdict holds for these weights in this precision, device and major version of transformers.

    Args:
        model: the decoder.
        weights: digest of its weights.
        again: run the matrix even if there is a verdict.

    Raises:
        UnsupportedModel: the model's KV cannot be reused at all.
    """
    path = _path(model, weights)
    if not again and (rows := _read(path)):
        return rows
    _log.warning(  # nobody waits a minute for silence
        "checking that stored KV is exact on %s: about ten short forwards, seconds for a small "
        "decoder and minutes for a large one on a CPU. The verdict is kept in %s: once for these "
        "weights",
        type(model).__name__,
        path.parent,
    )
    rows = run_gate(model)
    _write(path, rows)
    return rows


def require_passed(model: PreTrainedModel, weights: str) -> None:
    """Run or recall the gate.

    Raises:
        UnsupportedModel: a row of the matrix failed; the message names it with its error.
    """
    failed = [row for row in judge(model, weights) if not row.passed]
    if failed:
        rows = "; ".join(f"{row.name}: {row.error:.1e} > {row.allowed:.0e}" for row in failed)
        raise UnsupportedModel(f"{type(model).__name__} failed the KV gate ({rows})")


def _path(model: PreTrainedModel, weights: str) -> Path:
    major = transformers.__version__.split(".")[0]
    state = digest_fields(
        "kv gate", _VERSION, weights, str(model.dtype), model.device.type, major, torch.__version__
    )
    return home() / "gate" / f"{state}.json"


def _read(path: Path) -> list[GateRow]:
    try:
        return [GateRow(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):  # none yet, or one of another version
        return []


def _write(path: Path, rows: Sequence[GateRow]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump([asdict(row) for row in rows], file)
        os.replace(partial, path)
    except OSError as error:  # a read-only home costs time, nothing else
        _log.warning("cannot remember the verdict on a model in %s: %s", path.parent, error)
