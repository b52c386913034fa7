"""Selective augmentation: what has too little to do with the query gives nothing."""

import pytest

from ragpack import ContextPacker, Passage
from ragpack.errors import ConfigError
from ragpack.report import PackedContext
from ragpack.types import Artifact, EmbedsArtifact, TextArtifact

QUERY = "who wrote the program"
SCORED = [
    Passage("far", "Rain fell for a week.", "Weather", score=0.1),
    Passage("near", "Ada wrote the first program.", "Ada", score=0.8),
    Passage("middle", "The engine was never built.", "Engine", score=0.4),
]


def packer_for(method, **settings) -> ContextPacker:
    return ContextPacker(method, store="memory://", **settings)


def rows(packed: PackedContext) -> dict[str, tuple[str, str]]:
    return {row.id: (row.cache, row.reason) for row in packed.report.passages}


def test_a_method_that_judges_leaves_out_what_it_finds_beside_the_point(scripted, passages) -> None:
    with packer_for(scripted(), min_relevance=2) as packer:
        packed = packer.pack(QUERY, passages)
    assert rows(packed) == {
        "a": ("miss", ""),
        "b": ("miss", "below min_relevance"),
        "c": ("miss", "below min_relevance"),
    }
    assert packed.text == passages[0].full_text
    assert packed.report.fallbacks == {}
    assert [row.tokens_out for row in packed.report.passages[1:]] == [0, 0]


def test_everything_left_out_is_an_empty_context_and_no_failure(scripted, passages) -> None:
    with packer_for(scripted(), min_relevance=99, strict=True) as packer:
        packed = packer.pack(QUERY, passages)
    assert (packed.text, packed.segments, packed.report.tokens_out) == ("", (), 0)
    assert packed.report.fallbacks == {}


@pytest.mark.parametrize("method", ["identity", "ape", "llmlingua2"])
def test_the_retrievers_score_decides_before_anything_is_computed(method: str) -> None:
    far = [SCORED[0], Passage("twin", SCORED[0].text, SCORED[0].title, score=0.1)]
    with packer_for(method, min_relevance=0.2) as packer:
        packed = packer.pack(QUERY, far)
        packer.flush()
        assert packer.store.stats().entries == 0
    assert rows(packed) == {
        "far": ("skipped", "below min_relevance"),
        "twin": ("skipped", "duplicate of far"),
    }
    assert packed.text == ""


def test_rows_keep_the_order_of_the_passages() -> None:
    with packer_for("identity", min_relevance=0.3) as packer:
        packed = packer.pack(QUERY, SCORED)
    assert [row.id for row in packed.report.passages] == ["far", "near", "middle"]
    assert [segment.passage.id for segment in packed.segments] == ["near", "middle"]


def test_a_method_of_the_whole_set_never_sees_what_is_left_out(scripted) -> None:
    class Summary(scripted):
        scope = "set"

        def compress(self, passages, query) -> list[Artifact]:
            return [TextArtifact(text=passage.text) for passage in passages]

    with packer_for(Summary(), min_relevance=0.3) as packer:
        packed = packer.pack(QUERY, SCORED)
    assert packed.text == "\n".join(passage.full_text for passage in SCORED[1:])
    assert rows(packed) == {
        "far": ("skipped", "below min_relevance"),
        "near": ("miss", ""),
        "middle": ("miss", "together with near"),
    }


def test_a_passage_that_failed_is_passed_on_whatever_the_threshold(scripted, passages) -> None:
    def breaks_on_c(batch) -> None:
        if any(passage.id == "c" for passage in batch):
            raise RuntimeError("cannot read c")

    with packer_for(scripted(breaks_on_c), min_relevance=2) as packer:
        packed = packer.pack(QUERY, passages)
    assert [segment.passage.id for segment in packed.segments] == ["a", "c"]
    assert packed.report.fallbacks == {"RuntimeError": 1}


def test_a_judgement_that_breaks_falls_back_to_the_text(scripted, passages) -> None:
    class Breaks(scripted):
        def relevance(self, query, passages, artifacts) -> list[float]:
            raise ZeroDivisionError

    with packer_for(Breaks(), min_relevance=2) as packer:
        packed = packer.pack(QUERY, passages)
    assert packed.report.fallbacks == {"ZeroDivisionError": 3}
    assert packed.text == "\n\n".join(passage.full_text for passage in passages)


def test_a_threshold_without_any_score_is_refused() -> None:
    unscored = [*SCORED, Passage("bare", "No score here.")]
    with (
        packer_for("identity", min_relevance=0.2) as packer,
        pytest.raises(ConfigError, match="'bare' has none: identity does not judge"),
    ):
        packer.pack(QUERY, unscored)


@pytest.mark.parametrize("least", [float("nan"), float("inf"), float("-inf")])
def test_a_threshold_that_is_no_number_is_refused(least: float) -> None:
    with pytest.raises(ConfigError, match="min_relevance must be a finite number"):
        packer_for("identity", min_relevance=least)


def test_recomp_judges_by_its_best_sentence() -> None:
    with packer_for("recomp-extractive", min_relevance=0.3) as packer:
        packed = packer.pack("Who wrote the first program?", SCORED)
        artifacts = packer.compressor.compress(SCORED, None)
        assert all(isinstance(artifact, EmbedsArtifact) for artifact in artifacts)
        judged = packer.compressor.relevance("Who wrote the first program?", SCORED, artifacts)
    assert [segment.passage.id for segment in packed.segments] == ["near"]
    assert judged[1] > 0.3 > max(judged[0], judged[2])


def test_a_budget_goes_by_the_retrievers_scores_where_a_method_has_none(counter) -> None:
    budget = counter.count([SCORED[1].full_text + "\n\n" + SCORED[2].full_text])[0]
    with packer_for("identity") as packer:
        packed = packer.pack(QUERY, SCORED, budget=budget)
        unscored = packer.pack(QUERY, [Passage(p.id, p.text, p.title) for p in SCORED], budget=20)
    assert [segment.passage.id for segment in packed.segments] == ["near", "middle"]
    assert unscored.segments[0].passage.id == "far"


@pytest.mark.parametrize("budget", [0, -1, float("nan")])
def test_a_budget_that_is_none_is_refused_by_each_call(budget) -> None:
    with (
        packer_for("identity") as packer,
        pytest.raises(ConfigError, match="budget must be at least 1 token"),
    ):
        packer.pack(QUERY, SCORED, budget=budget)


def test_a_deadline_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="deadline_ms must be above 0"):
        packer_for("identity", deadline_ms=float("nan"))
