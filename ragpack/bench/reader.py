"""A decoder reads contexts: how likely it finds the gold answer, and what it answers itself."""

import statistics
from collections.abc import Sequence

from ragpack.bench.measures import token_f1
from ragpack.bench.questions import Question
from ragpack.protocols import Decoder
from ragpack.types import Segment, render

__all__ = ["read"]

_ANSWER_TOKENS = 32


def read(decoder: Decoder, question: Question, segments: Sequence[Segment]) -> tuple[float, float]:
    """Mean negative log-likelihood (nats a token) of the first answer, and F1 of the decoder's own.

    Raises:
        HandoffError: the context does not fit into the decoder's window.
    """
    context = render([segment for segment in segments if segment.kept_text])
    likelihood = decoder.score(context, question.text, question.answers[0])
    answer = decoder.generate(context, question.text, max_new_tokens=_ANSWER_TOKENS)
    return -statistics.fmean(likelihood), token_f1(answer.text, question.answers)
