"""Adds what packing saved to an upstream's answer, and changes nothing else in it."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

from ragpack.report import PackedContext

__all__ = ["Account"]

_MAX_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class Account:
    """What one packed context cost and saved."""

    packed: PackedContext

    @property
    def headers(self) -> dict[str, str]:
        """The same in short, known before the answer."""
        report = self.packed.report
        return {
            "X-Ragpack-Tokens-In": str(report.tokens_in),
            "X-Ragpack-Tokens-Out": str(report.tokens_out),
        }

    async def in_json(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """An answer in one piece, with ``ragpack`` and, in its usage, the tokens saved."""
        whole = b"".join([chunk async for chunk in chunks])
        answer = _object(whole)
        yield whole if answer is None else self._added(answer)

    async def in_events(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """A stream of events; only one that tells the usage is touched."""
        rest = b""
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            if lines:
                yield b"".join(self._line(line) + b"\n" for line in lines)
            if len(rest) > _MAX_LINE:  # no event that tells the usage is that long
                yield rest
                rest = b""
        if rest:
            yield self._line(rest)

    def _line(self, line: bytes) -> bytes:
        field, _, value = line.partition(b":")
        event = _object(value) if field == b"data" and b'"usage"' in value else None
        if event is None or not event.get("usage"):
            return line
        return b"data: " + self._added(event) + (b"\r" if line.endswith(b"\r") else b"")

    def _added(self, answer: dict[str, Any]) -> bytes:
        report = self.packed.report
        rows = [row.to_dict() for row in report.passages]
        answer["ragpack"] = {"passages": rows, "report": report.to_dict()}
        if isinstance(usage := answer.get("usage"), dict):
            usage["context_tokens_saved"] = report.tokens_in - report.tokens_out
        return json.dumps(answer, separators=(",", ":")).encode()


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
