"""The exactness matrix on every supported family, and what it refuses."""

from copy import deepcopy

import pytest
import torch
import transformers

from ragpack.errors import UnsupportedModel
from ragpack.kv import gate, verdict
from ragpack.kv.encode import KVEncoder

_SMALL = {
    "pad_token_id": 0,
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def _random_model(class_name: str, **settings):
    config = getattr(transformers, class_name)(**(_SMALL | settings))
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval()


def test_every_equality_holds(tiny_model, family):
    rows = gate.run_gate(tiny_model(family))
    assert len(rows) == 6
    assert {row.name: row.error for row in rows if not row.passed} == {}


def test_equalities_hold_in_bfloat16_within_its_precision(tiny_model):
    rows = gate.run_gate(deepcopy(tiny_model("llama")).to(torch.bfloat16))
    assert all(row.passed for row in rows)
    assert max(row.error for row in rows) > 1e-5


def test_windows_are_exercised(tiny_model, monkeypatch):
    """Without windows in the plan, the matrix of a windowed model must fail."""
    monkeypatch.setattr(
        "ragpack.kv.plan.Plan.segments",
        lambda self, length, queries, window: self._segments(length, queries, None),
    )
    failed = [row.name for row in gate.run_gate(tiny_model("gemma2")) if not row.passed]
    assert "parallel equals a block mask" in failed


def test_a_model_whose_rotation_pairs_other_dimensions_fails(tmp_path, monkeypatch):
    """Cohere interleaves the rotary dimensions; nothing but the matrix can tell."""
    monkeypatch.setenv("RAGPACK_HOME", str(tmp_path))
    model = _random_model("CohereConfig")
    with pytest.raises(UnsupportedModel, match="rotation equals encoding"):
        verdict.require_passed(model, "digest-of-cohere")


def test_the_verdict_is_remembered_by_weights(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("RAGPACK_HOME", str(tmp_path))
    runs = []
    monkeypatch.setattr(verdict, "run_gate", lambda model: runs.append(1) or gate.run_gate(model))
    first = verdict.judge(tiny_model("llama"), "a")
    assert verdict.judge(tiny_model("llama"), "a") == first
    assert len(runs) == 1
    verdict.judge(tiny_model("llama"), "b")
    verdict.judge(tiny_model("llama"), "a", again=True)
    assert len(runs) == 3


def test_the_wait_for_a_verdict_is_announced_before_it_and_once(
    tiny_model, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("RAGPACK_HOME", str(tmp_path))
    said = []
    monkeypatch.setattr(
        verdict, "run_gate", lambda model: said.extend(caplog.messages) or gate.run_gate(model)
    )
    verdict.judge(tiny_model("llama"), "a")
    verdict.judge(tiny_model("llama"), "a")
    (message,) = said
    assert caplog.messages == said
    assert all(part in message for part in ("LlamaForCausalLM", "minutes", str(tmp_path / "gate")))


def test_a_damaged_verdict_is_made_again(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("RAGPACK_HOME", str(tmp_path))
    rows = verdict.judge(tiny_model("llama"), "a")
    (file,) = (tmp_path / "gate").iterdir()
    file.write_text("{")
    assert [row.name for row in verdict.judge(tiny_model("llama"), "a")] == [r.name for r in rows]


def test_frequencies_that_follow_the_length_are_refused(tiny_model):
    with pytest.raises(UnsupportedModel, match="change with the length"):
        gate.run_gate(tiny_model("llama-dynamic"))


@pytest.mark.parametrize(
    ("class_name", "settings", "reason"),
    [
        ("DeepseekV3Config", {"kv_lora_rank": 8, "q_lora_rank": 8}, "latent attention"),
        ("Gemma3nTextConfig", {"num_kv_shared_layers": 1}, "share their keys"),
        ("Qwen3NextConfig", {"layer_types": ["linear_attention", "full_attention"]}, "linear"),
        ("SmolLM3Config", {"no_rope_layers": [1, 0]}, "no rotary positions"),
        ("GPT2Config", {}, "no rotary positions"),
    ],
)
def test_other_kinds_of_layers_are_refused_with_the_reason(class_name, settings, reason):
    config = getattr(transformers, class_name)(**(_SMALL | settings))
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(UnsupportedModel, match=reason):
        KVEncoder(model, [1])
