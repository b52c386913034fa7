"""What the service answers, as values. Fields that a newer service adds are passed over."""

from dataclasses import dataclass, field
from typing import Any, Literal

from ragpack.types import Kind, Span

__all__ = [
    "Compression",
    "Context",
    "Deleted",
    "Embeds",
    "Job",
    "Message",
    "Method",
    "Model",
    "PassageResult",
    "Ranked",
    "RankedDocument",
    "Ranking",
    "Readiness",
    "Report",
    "Unit",
]


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest piece that can be kept or dropped: ``text[start:end]``.

    ``score`` is higher for what is more relevant, and None where the method gives none.
    """

    start: int
    end: int
    score: float | None
    tokens: int


@dataclass(frozen=True, slots=True)
class PassageResult:
    """What became of one passage.

    ``kept`` are ranges of the passage's text; ``text`` is what they hold, or the words of a method
    that writes its own. ``cache`` and ``reason`` are those of
    :class:`ragpack.report.PassageReport`. ``title_tokens`` and ``units`` come with ``scores=True``.
    """

    index: int
    id: str
    text: str
    kept: tuple[Span, ...]
    tokens_in: int
    tokens_out: int
    cache: str
    reason: str = ""
    title_tokens: int | None = None
    units: tuple[Unit, ...] | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The account of a request; ``rate`` is tokens out over tokens in, ``ms`` milliseconds."""

    method: str
    tokens_in: int
    tokens_out: int
    rate: float
    hits: int
    misses: int
    budget: int | None = None
    fallbacks: dict[str, int] = field(default_factory=dict)
    ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compression:
    """The passages compressed, in the order given; ``settings`` are those in force."""

    id: str
    method: str
    settings: dict[str, Any]
    results: tuple[PassageResult, ...]
    report: Report


@dataclass(frozen=True, slots=True)
class Message:
    """A chat message."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Context:
    """One context for a decoder; ``messages`` where they were asked for."""

    id: str
    context: str
    passages: tuple[PassageResult, ...]
    report: Report
    messages: tuple[Message, ...] | None = None


@dataclass(frozen=True, slots=True)
class Embeds:
    """Soft tokens: ``payload`` goes into a request to a vLLM server that runs ``model``."""

    id: str
    model: str
    payload: dict[str, Any]
    report: Report


@dataclass(frozen=True, slots=True)
class Method:
    """A method of the service; ``settings`` are those a request may choose, with their defaults."""

    name: str
    kind: Kind
    query_aware: bool
    cached: bool
    scope: Literal["passage", "set"]
    summary: str
    settings: dict[str, Any]
    available: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the service uses, and for what."""

    id: str
    used_for: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the service can do its work; each check is ``"ok"`` or what is amiss."""

    ready: bool
    checks: dict[str, str]


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document's text, where it was asked for."""

    text: str


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document's place in the request, and the method's own score of it."""

    index: int
    relevance_score: float
    document: RankedDocument | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """The documents, best first."""

    id: str
    model: str
    results: tuple[Ranked, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """Work that goes on after its request was answered.

    ``result`` says what it did when it is done, ``error`` why it failed.
    """

    id: str
    status: Literal["queued", "running", "done", "failed"]
    result: dict[str, Any] | None = None
    error: str | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in ("done", "failed")


@dataclass(frozen=True, slots=True)
class Deleted:
    """A passage that is gone; ``artifacts`` counts what was stored for its text."""

    id: str
    artifacts: int
