"""What a request takes of each passage: selective augmentation first, then the method's own choice.

*Selective augmentation* is RECOMP's word (Xu et al., 2024) for adding nothing where nothing helps.
Here it works for every method: a passage below a least relevance gives nothing. A method that
judges passages does so by its own scores; for all others the retriever's decide, before anything
is looked up.
"""

from collections.abc import Callable, Sequence

from ragpack.account import LEFT_OUT, Outcome
from ragpack.errors import ConfigError
from ragpack.protocols import Compressor
from ragpack.reader import Lookup
from ragpack.types import Artifact, Passage

__all__ = ["Selection"]


class Selection:
    """One method's way to select.

    Args:
        compressor: the method.
        least: relevance below which a passage gives nothing; None lets all of them in.
        strict: let errors of the method through.
        warn: told of errors of the method that are not let through.
    """

    def __init__(
        self,
        compressor: Compressor,
        least: float | None,
        *,
        strict: bool,
        warn: Callable[[str, Exception], None],
    ) -> None:
        self._compressor = compressor
        self._least = least
        self._strict = strict
        self._warn = warn

    def sift(self, passages: Sequence[Passage]) -> tuple[list[Passage], list[Outcome]]:
        """The passages to look up, and the outcomes of those that the retriever's score leaves out.

        Raises:
            ConfigError: the method does not judge passages, and one has no score of a retriever.
        """
        if self._least is None or self._compressor.judges:
            return list(passages), []
        near: list[Passage] = []
        far: list[Outcome] = []
        for passage in passages:
            if _score(passage, self._compressor.name) >= self._least:
                near.append(passage)
            else:
                far.append(Outcome(passage, Lookup(None, "skipped"), LEFT_OUT, (passage,)))
        return near, far

    def choose(
        self,
        query: str,
        passages: Sequence[Passage],
        looked: Sequence[Lookup],
        budget: int | None,
    ) -> list[Outcome]:
        """The method's choice for each passage; None where the whole text must stand in."""
        pairs = list(zip(passages, looked, strict=True))
        outcomes = [Outcome(passage, look, None, (passage,)) for passage, look in pairs]
        usable = [i for i, look in enumerate(looked) if look.artifact is not None]
        artifacts = [look.artifact for look in looked if look.artifact is not None]
        if not usable:
            return outcomes
        try:
            choices = self._choices(query, [passages[i] for i in usable], artifacts, budget)
            for i, choice in zip(usable, choices, strict=True):
                outcomes[i] = Outcome(passages[i], looked[i], choice, (passages[i],))
        except Exception as error:  # fail open: the original text is always an answer
            if self._strict:
                raise
            self._warn(f"select failed: {type(error).__name__}", error)
            for i in usable:
                failed = Lookup(None, looked[i].result, type(error).__name__, error)
                outcomes[i] = Outcome(passages[i], failed, None, (passages[i],))
        return outcomes

    def _choices(
        self,
        query: str,
        passages: Sequence[Passage],
        artifacts: Sequence[Artifact],
        budget: int | None,
    ) -> list[Artifact]:
        near = list(range(len(passages)))
        if self._least is not None and self._compressor.judges:
            found = self._compressor.relevance(query, passages, artifacts)
            near = [i for i, value in enumerate(found) if value >= self._least]
        chosen = self._compressor.select(
            query, [passages[i] for i in near], [artifacts[i] for i in near], budget
        )
        choices: list[Artifact] = [LEFT_OUT] * len(passages)
        for i, choice in zip(near, chosen, strict=True):
            choices[i] = choice
        return choices


def _score(passage: Passage, method: str) -> float:
    if passage.score is None:
        raise ConfigError(
            f"min_relevance needs a score, and passage {passage.id!r} has none: {method} does not "
            "judge passages itself, so take them from a retriever that scores them, or choose a "
            "method that judges (recomp-extractive, exit-mini, exit)"
        )
    return passage.score
