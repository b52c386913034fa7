"""Documents with a file of their own: plain text and Markdown."""

import logging
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from ragpack.errors import InputError
from ragpack.types import Passage

from .records import LARGEST_RECORD, BadRecord, Item, Record

__all__ = ["read_document"]

_log = logging.getLogger(__name__)

_MARKDOWN = {".md", ".markdown"}
_FRONT_MATTER = re.compile(r"\A---\r?\n.*?\n(?:---|\.\.\.)\r?\n", re.DOTALL)
_HEAD_CHARACTERS = 1 << 16
"""Where the first heading is looked for: parsing a whole book for its title would take a minute."""


def read_document(path: Path, name: str, source: str = "") -> Iterator[Item]:
    """The one document of a file, called ``name``; none where the file is empty.

    UTF-8 is read, and UTF-16 that says so with a byte order mark. A Markdown document's title is
    its first heading.

    Raises:
        InputError: the file cannot be opened.
    """
    try:
        if path.stat().st_size > LARGEST_RECORD:
            reason = f"larger than {LARGEST_RECORD >> 20} MiB: cut it into several files"
            yield BadRecord(0, reason, source, {"id": name})
            return
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    try:
        text = _decoded(raw)
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.start}): convert it, for example with iconv"
        yield BadRecord(0, reason, source, {"id": name})
        return
    if not text.strip():
        _log.warning("%s is empty and was passed over", path)
        return
    title = _first_heading(text) if path.suffix.lower() in _MARKDOWN else ""
    yield Record(0, Passage(name, text, title), len(raw), source)


def _decoded(raw: bytes) -> str:
    wide = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    return raw.decode("utf-16" if wide else "utf-8-sig")


def _first_heading(text: str) -> str:
    """The words of the first heading, without their markup; empty where there is none."""
    from markdown_it import MarkdownIt

    head = _FRONT_MATTER.sub("", text[:_HEAD_CHARACTERS])
    tokens = MarkdownIt().parse(head)
    after = (b for a, b in pairwise(tokens) if a.type == "heading_open")
    heading = next(after, None)
    parts = (heading.children or []) if heading is not None else []
    return "".join(part.content for part in parts).strip()
