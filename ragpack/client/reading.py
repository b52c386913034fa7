"""JSON into dataclasses, by their annotations."""

from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ragpack.errors import ServiceError

__all__ = ["read", "read_list"]

T = TypeVar("T")


def read(kind: type[T], value: Any) -> T:
    """``value``, an object of JSON, as the dataclass ``kind``; unknown members are passed over.

    Raises:
        ServiceError: a member that has no default is missing, or ``value`` is no object.
    """
    if not isinstance(value, dict):
        raise ServiceError(f"the service answered no {kind.__name__}: is this a ragpack service?")
    hints, given = _hints(kind), {}  # type: ignore[arg-type]
    for each in fields(kind):  # type: ignore[arg-type]
        if each.name in value:
            given[each.name] = _as(hints[each.name], value[each.name])
        elif each.default is MISSING and each.default_factory is MISSING:
            raise ServiceError(f"the service's {kind.__name__} has no {each.name!r}")
    return kind(**given)


def read_list(kind: type[T]) -> Callable[[Any], list[T]]:
    """A reader of ``{"data": [...]}``, the shape of every list of the service."""

    def reader(value: Any) -> list[T]:
        rows = value.get("data") if isinstance(value, dict) else None
        if not isinstance(rows, list):
            raise ServiceError(f"the service answered no list of {kind.__name__}")
        return [read(kind, row) for row in rows]

    return reader


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _as(hint: Any, value: Any) -> Any:
    """``value`` as ``hint`` says: nested dataclasses and tuples are made, the rest is left."""
    if isinstance(hint, type) and is_dataclass(hint):
        return read(hint, value)
    if get_origin(hint) in (Union, UnionType):
        options = [option for option in get_args(hint) if option is not NoneType]
        return None if value is None else _as(options[0], value)
    if get_origin(hint) is tuple and isinstance(value, list):
        inner = get_args(hint)[0]
        return tuple(_as(inner, each) for each in value)
    return value
