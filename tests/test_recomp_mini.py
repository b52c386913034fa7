"""recomp-mini with its shipped adapter, and what an adapter does to an encoder."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ragpack.compressors.recomp_extractive import RecompExtractive
from ragpack.compressors.recomp_mini import RecompMini
from ragpack.config import DEFAULT_ENCODER
from ragpack.errors import ConfigError, UnsupportedModel
from ragpack.models import SHIPPED_ADAPTER, encoder, load_encoder
from ragpack.types import Passage

PASSAGES = [
    Passage("a", "The pier opened late. It was built in 1871. It is red.", title="Lighthouse"),
    Passage("b", "Bread is baked with flour. Salt comes first.", title="Bread"),
]


@pytest.fixture(scope="module")
def method():
    return RecompMini(top_n=1)


def adapter(folder, **changes):
    """A copy of the shipped adapter with some of its settings changed."""
    config = json.loads((SHIPPED_ADAPTER / "adapter_config.json").read_text()) | changes
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(
        (SHIPPED_ADAPTER / "adapter_model.safetensors").read_bytes()
    )
    return folder


def test_what_is_shipped_is_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED_ADAPTER.iterdir()) <= 5_000_000


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("When was the lighthouse built?", "It was built in 1871."),
        ("What is bread made of?", "Bread is baked with flour."),
    ],
)
def test_the_answering_sentence_is_kept(method, query, expected) -> None:
    chosen = method.select(query, PASSAGES, method.compress(PASSAGES, None))
    kept = [
        passage.text[start:end]
        for passage, artifact in zip(PASSAGES, chosen, strict=True)
        for start, end in artifact.spans
    ]
    assert kept == [expected]


def test_vectors_are_of_unit_length_and_others_than_untrained_ones(method) -> None:
    trained, plain = method.compress(PASSAGES, None), RecompExtractive().compress(PASSAGES, None)
    for one, other in zip(trained, plain, strict=True):
        np.testing.assert_allclose(np.linalg.norm(one.vectors, axis=1), 1, atol=2e-3)
        assert one.spans == other.spans
        assert np.abs(one.vectors - other.vectors).max() > 0.01


def test_its_entries_are_not_those_of_recomp_extractive(method) -> None:
    assert method.fingerprint.digest != RecompExtractive().fingerprint.digest


def test_loading_it_leaves_the_plain_encoder_as_it_was(method) -> None:
    before = load_encoder(DEFAULT_ENCODER).encode(["bread"])
    encoder._load.cache_clear()
    assert method.encoder.encode(["bread"]).shape == (1, 384)
    np.testing.assert_array_equal(load_encoder(DEFAULT_ENCODER).encode(["bread"]), before)


def test_an_update_of_nothing_changes_no_vector_but_the_fingerprint(tmp_path) -> None:
    folder = adapter(tmp_path)
    parts = load_file(folder / "adapter_model.safetensors")
    nothing = {name: torch.zeros_like(part) for name, part in parts.items()}
    save_file(nothing, folder / "adapter_model.safetensors")
    idle, plain = load_encoder(DEFAULT_ENCODER, adapter=folder), load_encoder(DEFAULT_ENCODER)
    np.testing.assert_array_equal(idle.encode(["bread"]), plain.encode(["bread"]))
    assert idle.fingerprint != plain.fingerprint


def test_the_scale_of_an_adapter_is_part_of_the_fingerprint(method, tmp_path) -> None:
    half = RecompMini(adapter=adapter(tmp_path, lora_alpha=8))
    assert half.fingerprint.digest != method.fingerprint.digest


def test_an_adapter_that_is_not_there_or_of_another_sort(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no model"):
        _ = RecompMini(adapter=tmp_path / "none").fingerprint
    with pytest.raises(UnsupportedModel, match="plain LoRA"):
        _ = RecompMini(adapter=adapter(tmp_path, use_dora=True)).fingerprint
