import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from ragpack.errors import ConfigError, UnsupportedModel
from ragpack.models import SentenceEncoder, load_encoder, resolve
from ragpack.models.encoder import Recipe

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "",
    "文字は数える。",
    "👩‍👩‍👧‍👦 family",
    "nul \0 byte",
    "long " * 400,
    "A question about foxes?",
]


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    return load_encoder("all-minilm-l6-v2", device="cpu")


def test_vectors_equal_sentence_transformers(minilm: SentenceEncoder) -> None:
    peer = SentenceTransformer(str(resolve("all-minilm-l6-v2").path), device="cpu")
    ours, theirs = minilm.encode(TEXTS), peer.encode(TEXTS, show_progress_bar=False)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_vector_has_the_same_bits_whatever_stands_beside_it(minilm: SentenceEncoder) -> None:
    texts = TEXTS + [f"{word} " * count for word in ("fox", "dog") for count in (1, 2, 9, 9, 40)]
    together = minilm.encode(texts)
    alone = np.stack([minilm.encode([text])[0] for text in texts])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[::-1], minilm.encode(texts[::-1]))


def test_many_texts_are_split_into_batches_and_come_back_in_order(minilm: SentenceEncoder) -> None:
    texts = [f"{number} " * (1 + number % 20) for number in range(200)]
    vectors = minilm.encode(texts)
    np.testing.assert_allclose(vectors[::49], minilm.encode(texts[::49]), atol=1e-6)


def test_mixed_precision_is_near_and_has_a_fingerprint_of_its_own(minilm: SentenceEncoder) -> None:
    mixed = load_encoder("all-minilm-l6-v2", device="cpu", dtype="bfloat16")
    ours, exact = mixed.encode(TEXTS), minilm.encode(TEXTS)
    assert ours.dtype == np.float32
    cosines = (ours * exact).sum(axis=1) / np.linalg.norm(ours, axis=1)
    assert 0.999 < cosines.min() < 1 - 1e-6
    assert (mixed.fingerprint.dtype, minilm.fingerprint.dtype) == ("bfloat16", "float32")
    assert mixed.fingerprint.digest != minilm.fingerprint.digest


def test_the_precision_of_encoders_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGPACK_ENCODER_DTYPE", "bfloat16")
    assert load_encoder("all-minilm-l6-v2").fingerprint.dtype == "bfloat16"
    monkeypatch.setenv("RAGPACK_ENCODER_DTYPE", "fp8")
    with pytest.raises(ConfigError, match="float32 or bfloat16, not 'fp8'"):
        load_encoder("all-minilm-l6-v2")


def test_nothing_in_nothing_out(minilm: SentenceEncoder) -> None:
    assert minilm.encode([]).shape == (0, minilm.dim) == (0, 384)


def test_a_lone_surrogate_is_the_replacement_character(minilm: SentenceEncoder) -> None:
    odd, clean = minilm.encode(["a \ud800 b", "a \ufffd b"])
    np.testing.assert_array_equal(odd, clean)


def test_special_token_text_does_not_end_the_sentence(minilm: SentenceEncoder) -> None:
    tokens = minilm._tokenizer.encode("a [SEP] b").ids
    assert tokens.count(tokens[-1]) == 1


def test_threads_get_the_same_vectors(minilm: SentenceEncoder) -> None:
    texts = TEXTS[:5]
    expected = minilm.encode(texts)
    with ThreadPoolExecutor(4) as pool:
        for vectors in pool.map(minilm.encode, [texts] * 8):
            np.testing.assert_array_equal(vectors, expected)


def test_a_plain_checkpoint_is_mean_pooled_and_not_normalised(plain_bert: Path) -> None:
    encoder = load_encoder(str(plain_bert), device="cpu")
    text = "the lazy dog"
    inputs = AutoTokenizer.from_pretrained(plain_bert)(text, return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(plain_bert)(**inputs).last_hidden_state
    np.testing.assert_allclose(encoder.encode([text]), states.mean(1).numpy(), atol=1e-6)


def test_max_tokens_cuts_and_changes_the_fingerprint(plain_bert: Path) -> None:
    whole, short = load_encoder(str(plain_bert)), load_encoder(str(plain_bert), max_tokens=6)
    text = "the quick brown fox jumps over the lazy dog"
    assert not np.allclose(whole.encode([text]), short.encode([text]))
    np.testing.assert_array_equal(short.encode([text]), short.encode([f"{text} and more"]))
    assert whole.fingerprint.digest != short.fingerprint.digest


@pytest.mark.parametrize("max_tokens", [0, 33])
def test_max_tokens_beyond_the_model_is_refused(plain_bert: Path, max_tokens: int) -> None:
    with pytest.raises(ConfigError, match="max_tokens must be 1 to 32"):
        load_encoder(str(plain_bert), max_tokens=max_tokens)


def test_fingerprint_names_everything_the_vectors_depend_on(minilm: SentenceEncoder) -> None:
    fingerprint = minilm.fingerprint
    assert fingerprint.model == "all-minilm-l6-v2"
    assert len(fingerprint.weights) == len(fingerprint.tokenizer) == 64
    assert fingerprint.params["max_tokens"] == 256
    assert [kind for kind, _ in fingerprint.params["modules"]] == ["Pooling", "Normalize"]
    assert json.dumps(fingerprint.params)
    assert load_encoder("all-minilm-l6-v2").fingerprint.digest == fingerprint.digest


def test_another_tokenizer_is_another_fingerprint(plain_bert: Path, tmp_path: Path) -> None:
    before = load_encoder(str(plain_bert)).fingerprint
    copy = Path(shutil.copytree(plain_bert, tmp_path / plain_bert.name))
    file = copy / "tokenizer.json"
    file.write_text(file.read_text().replace('"lowercase": true', '"lowercase": false'))
    os.utime(file, ns=(0, 1))
    after = load_encoder(str(copy)).fingerprint
    assert (after.weights, after.model) == (before.weights, before.model)
    assert after.tokenizer != before.tokenizer


def test_a_model_of_another_kind_is_refused(plain_bert: Path) -> None:
    words = SentenceTransformer(str(plain_bert), device="cpu")
    words.max_seq_length = None
    with pytest.raises(UnsupportedModel, match="no text encoder that ragpack can batch"):
        SentenceEncoder(words, Recipe("words", None, None, None, "float32"), "words", "", "")
