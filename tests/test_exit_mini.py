"""exit-mini with its shipped weights."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from ragpack.compressors import exit_mini
from ragpack.compressors.exit_mini import ExitMini
from ragpack.compressors.recomp_mini import RecompMini
from ragpack.config import DEFAULT_ENCODER
from ragpack.errors import CompressionError, ConfigError
from ragpack.models import load_encoder
from ragpack.models.sentence_judge import SHIPPED_WEIGHTS
from ragpack.types import Passage, TextArtifact

QUERY = "When was the lighthouse built?"
LIGHT = Passage(
    "light",
    "The harbour lies in the north. The lighthouse was built in 1871. Dogs are welcome on a lead.",
    title="Harbour",
)
BREAD = Passage(
    "bread", "Bread is baked with flour and water. It rises for an hour.", title="Bread"
)


@pytest.fixture(scope="module")
def method():
    return ExitMini(device="cpu")


def best(artifact: TextArtifact) -> int:
    return max(range(len(artifact.scores)), key=artifact.scores.__getitem__)


def test_shipped_weights_are_small() -> None:
    assert SHIPPED_WEIGHTS.stat().st_size <= 5_000_000


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (QUERY, "The lighthouse was built in 1871."),
        ("Where is the harbour?", "The harbour lies in the north."),
        ("Which animals may come along?", "Dogs are welcome on a lead."),
    ],
)
def test_the_answering_sentence_scores_highest(method, query, expected) -> None:
    light, bread = method.compress([LIGHT, BREAD], query)
    start, end = light.spans[best(light)]
    assert LIGHT.text[start:end] == expected
    assert max(light.scores) > max(bread.scores)


def test_relevance_is_the_best_score_of_a_passage_or_of_what_mentions_it(method) -> None:
    mention = Passage("mention", "The lighthouse of 1871 stands beside a shop for Bread.")
    light, bread, named = method.compress([LIGHT, BREAD, mention], QUERY)
    alone = method.relevance(QUERY, [LIGHT, BREAD], [light, bread])
    assert alone == [max(light.scores), max(bread.scores)]
    together = method.relevance(QUERY, [BREAD, mention], [bread, named])
    assert together == [max(named.scores)] * 2


def test_every_sentence_has_a_score(method) -> None:
    light, bread = method.compress([LIGHT, BREAD], QUERY)
    assert [len(light.scores), len(bread.scores)] == [3, 2]
    assert [LIGHT.text[start:end][:3] for start, end in light.spans] == ["The", "The", "Dog"]


def test_scores_do_not_depend_on_the_other_passages(method) -> None:
    (alone,) = method.compress([LIGHT], QUERY)
    many = [Passage(str(n), BREAD.text * (n + 1)) for n in range(12)]
    beside = method.compress([*many, LIGHT], QUERY)[-1]
    assert beside.scores == pytest.approx(alone.scores, abs=1e-4)


def test_tau_and_budget_act_at_selection_alone(method) -> None:
    passages = [LIGHT, BREAD]
    artifacts = method.compress(passages, QUERY)
    everything = method.select(QUERY, passages, artifacts, budget=10)
    assert [each.spans for each in everything] == [each.spans for each in artifacts]
    scores = sorted(score for each in everything for score in each.scores)
    assert scores[0] < scores[-1]
    strict = ExitMini(tau=scores[-1])
    assert strict.fingerprint == method.fingerprint
    kept = strict.select(QUERY, passages, artifacts)
    assert [LIGHT.text[slice(*span)] for span in kept[0].spans] == [
        "The lighthouse was built in 1871."
    ]
    assert kept[1].spans == ()


def test_a_long_passage_is_read_to_its_end(method) -> None:
    text = "The market opens on Friday. " * 150 + "The lighthouse was built in 1871."
    (artifact,) = method.compress([Passage("long", text)], QUERY)
    assert len(artifact.scores) == 151
    assert best(artifact) == 150


def test_a_sentence_longer_than_a_window_gets_one_score(method) -> None:
    (artifact,) = method.compress([Passage("long", "数" * 900)], "数は何ですか")
    assert len(artifact.spans) == len(artifact.scores) == 1


def test_a_query_and_title_longer_than_the_window(method) -> None:
    passage = Passage("title", LIGHT.text, title="Harbour " * 400)
    (artifact,) = method.compress([passage], "lighthouse " * 2000)
    assert len(artifact.scores) == 3


@pytest.mark.parametrize("text", ["", " \n", "\x00", "\ud800", "🕯️", "[SEP] [CLS] [SEP].", "a"])
@pytest.mark.parametrize("query", ["", QUERY, "\udfff"])
def test_odd_input(method, text, query) -> None:
    passages = [Passage("odd", text, title=text), LIGHT]
    artifacts = method.compress(passages, query)
    chosen = method.select(query, passages, artifacts, budget=9)
    assert [len(each.scores) for each in chosen] == [len(each.spans) for each in artifacts]


def test_indexing_without_a_query_is_refused(method) -> None:
    with pytest.raises(CompressionError, match="reads the query"):
        method.compress([LIGHT], None)


@pytest.mark.parametrize("tau", [float("inf"), float("nan")])
def test_bad_tau(tau) -> None:
    with pytest.raises(ConfigError, match="tau"):
        ExitMini(tau=tau)


def test_weights_that_are_not_there_or_not_ours(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no weights"):
        _ = ExitMini(weights=tmp_path / "none.safetensors").judge
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    with pytest.raises(ConfigError, match="sentence scorer"):
        _ = ExitMini(weights=foreign).judge


def test_other_weights_make_another_fingerprint(method, tmp_path) -> None:
    tensors = load_file(SHIPPED_WEIGHTS)
    tensors["match"] = tensors["match"] + 1
    save_file(tensors, tmp_path / "other.safetensors")
    other = ExitMini(weights=tmp_path / "other.safetensors")
    assert other.fingerprint.digest != method.fingerprint.digest


def test_the_encoder_is_that_of_recomp_mini(method) -> None:
    assert ExitMini().encoder is RecompMini().encoder
    plain = ExitMini(encoder=load_encoder(DEFAULT_ENCODER), device="cpu")
    assert plain.fingerprint.digest != method.fingerprint.digest
    (one,), (other,) = method.compress([LIGHT], QUERY), plain.compress([LIGHT], QUERY)
    assert one.scores != other.scores


def test_methods_of_one_file_share_the_cross_encoder(method) -> None:
    assert ExitMini(device="cpu").judge._reader is method.judge._reader


def test_the_weight_of_the_log_odds_is_part_of_the_fingerprint(method, monkeypatch) -> None:
    monkeypatch.setattr(exit_mini, "LOG_ODDS", exit_mini.LOG_ODDS * 2)
    assert ExitMini(device="cpu").fingerprint.digest != method.fingerprint.digest


def test_weights_that_were_written_anew_are_read_anew(tmp_path) -> None:
    file = tmp_path / "weights.safetensors"
    tensors = load_file(SHIPPED_WEIGHTS)
    save_file(tensors, file)
    before = ExitMini(weights=file, device="cpu").compress([LIGHT], QUERY)
    save_file(tensors | {"match": -tensors["match"]}, file)
    after = ExitMini(weights=file, device="cpu").compress([LIGHT], QUERY)
    assert before[0].scores != after[0].scores
