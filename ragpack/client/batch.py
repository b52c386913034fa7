"""Many questions in one call: what is sent, and the lines that come back."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ragpack.client import calls
from ragpack.client.calls import Choice
from ragpack.client.problems import error_from
from ragpack.client.reading import read
from ragpack.client.shapes import Compression
from ragpack.errors import RagpackError, ServiceError, ServiceUnavailable
from ragpack.text import plural
from ragpack.types import Passage

__all__ = ["Batch", "Question", "Reply"]


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a batch, with its own passages and its own choice of a method."""

    query: str
    passages: Sequence[Passage | str]
    scores: bool = False
    choice: Choice = field(default_factory=Choice)


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the question at ``index``, or the error that it met."""

    index: int
    response: Compression | None = None
    error: RagpackError | None = None


class Batch:
    """One call under way: its body, and a check that every question was answered."""

    def __init__(self, questions: Sequence[Question]) -> None:
        sent = [calls.compress(q.query, q.passages, q.scores, q.choice).body for q in questions]
        self.body: dict[str, Any] = {"requests": sent}
        self._open = len(sent)

    def reply(self, line: str) -> Reply | None:
        """What a line of the answer says; None for an empty one, which keeps a connection awake.

        Raises:
            ServiceError: it says nothing that a ragpack service says.
        """
        if not line.strip():
            return None
        try:
            value = json.loads(line)
            index, problem = value["index"], value.get("problem")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ServiceError("a line of the answer is no line of a ragpack service") from error
        self._open -= 1
        if problem is not None:
            failed = error_from(problem, problem.get("status", 0), f"question {index}")
            return Reply(index, error=failed)
        return Reply(index, read(Compression, value.get("response")))

    def finish(self) -> None:
        """Call it after the last line.

        Raises:
            ServiceUnavailable: questions were left unanswered.
        """
        if self._open > 0:
            raise ServiceUnavailable(
                f"the service left {plural(self._open, 'question')} unanswered"
            )
