"""OpenTelemetry spans where its API is installed, and nothing at all where it is not.

ragpack does not depend on ``opentelemetry-api``: an application that traces has it, and gets the
spans ``ragpack.retrieve``, ``ragpack.pack``, ``ragpack.store`` and ``ragpack.compress`` under its
own current span. No passage text, query or key is ever put into a span.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

__all__ = ["span"]


@cache
def _tracer() -> Any:
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace.get_tracer("ragpack")


def span(name: str, **attributes: str | int | float | bool) -> AbstractContextManager[Any]:
    """A span called ``ragpack.<name>`` around a ``with`` block; attributes get the same prefix."""
    tracer = _tracer()
    if tracer is None:
        return nullcontext()
    named = {f"ragpack.{key}": value for key, value in attributes.items()}
    entered: AbstractContextManager[Any] = tracer.start_as_current_span(
        f"ragpack.{name}", attributes=named
    )
    return entered
