"""What one question may hold: caps that no schema can state, and the caller's quota."""

from collections.abc import Sequence

from ragpack.service.caller import Caller
from ragpack.service.problems import Problem
from ragpack.service.schemas import PassageIn, passages_from
from ragpack.service.settings import Limits
from ragpack.types import Passage

__all__ = ["admit"]


def admit(
    query: str, given: Sequence[PassageIn | str], caller: Caller, limits: Limits
) -> list[Passage]:
    """The passages, where they and the query stay below the caps and within the quota.

    Raises:
        Problem: 413 above a cap, 429 above the quota.
    """
    _cap("query_characters", len(query), limits.query_characters)
    _cap("passages", len(given), limits.passages)
    passages = passages_from(given)
    _cap("characters", sum(len(p.title) + len(p.text) for p in passages), limits.characters)
    caller.charge(len(passages))
    return passages


def _cap(name: str, size: int, most: int) -> None:
    if size > most:
        raise Problem(413, "TooLarge", f"{name}: {size} is more than the {most} of this service")
