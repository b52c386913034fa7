"""The values that flow through ragpack.

A :class:`Passage` comes from a retriever. A compressor makes an :data:`Artifact` of it, which the
store keeps. A request selects from artifacts and packs :class:`Segment` objects for the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ragpack.digest import canonical_json, digest_fields

if TYPE_CHECKING:  # numpy alone would take most of the time of "import ragpack"
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Answer",
    "Artifact",
    "EmbedsArtifact",
    "Fingerprint",
    "KVArtifact",
    "Kind",
    "Passage",
    "Segment",
    "Span",
    "TextArtifact",
    "Usage",
    "merge_spans",
    "render",
]

Kind = Literal["text", "embeds", "kv"]
Span = tuple[int, int]
"""Half-open character range ``[start, end)`` of a passage's text, in code points."""


@dataclass(frozen=True, slots=True)
class Passage:
    """The unit of retrieval and caching.

    ``score`` is the retriever's (higher is better). ``metadata`` belongs to the caller: it is
    carried along, never read and never part of a key.
    """

    id: str
    text: str
    title: str = ""
    score: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """256-bit digest of the exact UTF-8 bytes of title and text, in hexadecimal."""
        return digest_fields("passage", self.title, self.text)

    @property
    def full_text(self) -> str:
        """Title and text as a decoder reads them: ``title`` newline ``text``."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What made an artifact: two equal fingerprints give equal artifacts for equal input.

    ``weights`` and ``tokenizer`` are content digests, ``params`` the method's settings that change
    the *stored* artifact (settings that act only at selection do not belong here).
    """

    method: str
    model: str = ""
    revision: str = ""
    weights: str = ""
    tokenizer: str = ""
    dtype: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1

    @property
    def digest(self) -> str:
        """256-bit digest of every field, in hexadecimal."""
        return digest_fields(
            "fingerprint",
            self.method,
            self.model,
            self.revision,
            self.weights,
            self.tokenizer,
            self.dtype,
            canonical_json(self.params),
            str(self.version),
        )


@dataclass(frozen=True, slots=True)
class TextArtifact:
    """Parts of a passage, with what a method thinks of each.

    ``spans`` are ascending and disjoint; ``scores`` (higher is more relevant) has the same length
    or is empty. ``text`` is set only by an abstractive method, whose words are its own.
    """

    spans: tuple[Span, ...] = ()
    scores: tuple[float, ...] = ()
    text: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class EmbedsArtifact:
    """Vectors of a passage: one for each sentence, or one for each chunk of decoder tokens.

    Shapes: ``vectors`` [n, d]; ``spans`` n character ranges (sentences) or empty; ``token_ids``
    [n, k] decoder tokens of each chunk, -1 where the tail is short, or None; ``losses`` [n] or
    None.
    """

    vectors: NDArray[Any]
    spans: tuple[Span, ...] = ()
    token_ids: NDArray[np.int32] | None = None
    losses: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class KVArtifact:
    """Attention keys and values of a passage.

    Shapes: ``keys`` and ``values`` [layers, kv_heads, tokens, head_dim]; ``token_ids`` [tokens].
    ``dtype`` names the element type (``bf16`` is held as uint16 words, numpy has no such type).
    ``layout`` says where RoPE stands: ``"pre-rope"``, or ``"post-rope@P"`` for start position P.
    """

    keys: NDArray[Any]
    values: NDArray[Any]
    token_ids: NDArray[np.int32]
    layout: str
    dtype: str


Artifact = TextArtifact | EmbedsArtifact | KVArtifact


def merge_spans(text: str, spans: Sequence[Span]) -> tuple[Span, ...]:
    """Ascending ``spans`` with neighbours joined where only white space lies between them."""
    merged: list[Span] = []
    for start, end in spans:
        if merged and not text[merged[-1][1] : start].strip():
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


@dataclass(frozen=True, slots=True)
class Segment:
    """What one passage contributes to a packed context.

    ``spans`` are the kept ranges of ``passage.text`` (none for an abstractive method, see
    ``abstract``); ``artifact`` carries soft tokens or KV for methods that have them.
    """

    passage: Passage
    spans: tuple[Span, ...] = ()
    abstract: str | None = None
    artifact: Artifact | None = None

    @property
    def kept_text(self) -> str:
        """The kept ranges in document order, gaps written as one space."""
        if self.abstract is not None:
            return self.abstract
        return " ".join([self.passage.text[start:end] for start, end in self.spans])

    @property
    def text(self) -> str:
        """The segment as a decoder reads it: the title line, then the kept text."""
        title, kept = self.passage.title, self.kept_text
        return f"{title}\n{kept}" if title else kept


def render(segments: Sequence[Segment]) -> str:
    """The context string: segments in order, an empty line between them."""
    return "\n\n".join(segment.text for segment in segments)


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one answer; ``context_tokens_saved`` is against the uncompressed passages."""

    prompt_tokens: int
    completion_tokens: int
    context_tokens_saved: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A decoder's answer; milliseconds count from the call to the first and to the last token."""

    text: str
    ttft_ms: float
    total_ms: float
    usage: Usage
