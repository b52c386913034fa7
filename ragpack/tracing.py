"""OpenTelemetry spans where its API is installed, and nothing at all where it is not.

ragpack does not depend on ``opentelemetry-api``: an application that traces has it, and gets the
spans ``ragpack.retrieve``, ``ragpack.pack``, ``ragpack.store`` and ``ragpack.compress`` under its
own current span. No passage text, query or key is ever put into a span.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

__all__ = ["note", "span"]


Attribute = str | int | float | bool


@cache
def _trace() -> Any:
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace


def span(name: str, **attributes: Attribute) -> AbstractContextManager[Any]:
    """A span called ``ragpack.<name>`` around a ``with`` block; attributes get the same prefix."""
    trace = _trace()
    if trace is None:
        return nullcontext()
    tracer = trace.get_tracer("ragpack")
    entered: AbstractContextManager[Any] = tracer.start_as_current_span(
        f"ragpack.{name}", attributes=_prefixed(attributes)
    )
    return entered


def note(**attributes: Attribute) -> None:
    """Add attributes to the current span."""
    trace = _trace()
    if trace is not None:
        trace.get_current_span().set_attributes(_prefixed(attributes))


def _prefixed(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    return {f"ragpack.{key}": value for key, value in attributes.items()}
