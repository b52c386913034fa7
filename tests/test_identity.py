"""The identity method keeps every passage as it is."""

from ragpack.compressors.identity import Identity
from ragpack.types import Passage, TextArtifact


def test_keeps_the_whole_text_without_scores() -> None:
    passages = [Passage("1", " One.\x00 Two \ud800 "), Passage("2", "", title="Empty")]
    method = Identity()
    artifacts = method.compress(passages, None)
    assert artifacts == [TextArtifact(spans=((0, 13),)), TextArtifact()]
    assert method.select("any", passages, artifacts, budget=1) == artifacts


def test_is_not_worth_a_store() -> None:
    assert not Identity.cached
    assert Identity().fingerprint == Identity().fingerprint
