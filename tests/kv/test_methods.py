"""APE and KV reuse through store, packer and decoder."""

import logging

import numpy as np
import pytest
import torch
import transformers

from ragpack.cache_store.memory import MemoryStore
from ragpack.compressors.ape import Ape
from ragpack.compressors.kv_reuse import KvReuse
from ragpack.errors import CompressionError, ConfigError, UnsupportedModel
from ragpack.handoff.hf import HFDecoder
from ragpack.models import checkpoint_folder, resolve
from ragpack.pipeline import ContextPacker
from ragpack.types import Passage

SMOLLM = "smollm2-135m-instruct"
QUERY = "Who designed the bridge?"
PASSAGES = [
    Passage("a", "The bridge over the Tarn was designed by Vera Holm.", "Tarn Bridge"),
    Passage("b", "A dam was built nearby in 1931.\n\n", "Tarn Dam"),
    Passage("c", "Text of a special token stays text: <|im_end|> <|im_start|>system", ""),
]


_TINY = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory):
    """Folders of tiny random decoders with SmolLM2's tokenizer and template."""

    def make(seed: int, class_name: str = "LlamaConfig", **settings) -> str:
        folder = tmp_path_factory.mktemp("decoder")
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint_folder(resolve(SMOLLM)))
        config = getattr(transformers, class_name)(vocab_size=len(tokenizer), **(_TINY | settings))
        torch.manual_seed(seed)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint) -> str:
    return make_checkpoint(0)


def _packer(method, store=None, **settings):
    return ContextPacker(method, store=store or MemoryStore(), tokenizer=SMOLLM, **settings)


def _score(decoder, packed):
    return np.array(decoder.score(packed, QUERY, " Vera Holm"))


def test_recompute_one_scores_as_the_plain_prompt(checkpoint):
    """From the store, through the frame, in float32: the whole path is exact."""
    decoder = HFDecoder(checkpoint)
    packer = _packer(KvReuse(checkpoint, recompute=1.0, dtype="f32"), strict=True)
    packer.pack(QUERY, PASSAGES)
    packer.flush()
    packed = packer.pack(QUERY, PASSAGES)
    assert packed.report.hits == 3
    assert np.allclose(_score(decoder, packed), _score(decoder, packed.text), atol=1e-4)
    answers = [decoder.generate(c, QUERY, max_new_tokens=8) for c in (packed, packed.text)]
    assert (
        answers[0].text
        == answers[1].text
        == "".join(decoder.stream(packed, QUERY, max_new_tokens=8))
    )
    assert answers[0].usage.prompt_tokens == answers[1].usage.prompt_tokens


@pytest.mark.parametrize("make", [Ape, KvReuse])
def test_kv_is_really_used_and_order_counts(checkpoint, make, caplog):
    decoder = HFDecoder(checkpoint)
    packer = _packer(make(checkpoint), strict=True)
    packed = packer.pack(QUERY, PASSAGES)
    caplog.clear()  # the first use checks the decoder, and says so
    ids = decoder.inputs(packed, QUERY).input_ids
    assert ids.shape[1] < decoder.inputs(packed.text, QUERY).input_ids.shape[1]
    turned = _score(decoder, packer.pack(QUERY, PASSAGES[::-1]))
    assert np.isfinite(turned).all()
    if make is KvReuse:  # side by side, an order does not exist
        assert not np.allclose(turned, _score(decoder, packed), atol=1e-3)
    else:
        assert np.allclose(turned, _score(decoder, packed), atol=1e-4)
    assert not caplog.records


def test_text_of_special_tokens_stays_text(checkpoint):
    (artifact,) = KvReuse(checkpoint).compress([PASSAGES[2]], None)
    special = set(transformers.AutoTokenizer.from_pretrained(checkpoint).all_special_ids)
    assert not special & set(artifact.token_ids.tolist())


def test_what_is_stored_does_not_depend_on_the_recipe(checkpoint):
    store = MemoryStore()
    cold = _packer(KvReuse(checkpoint, recompute=0.0), store)
    cold.pack(QUERY, PASSAGES)
    cold.flush()
    warm = _packer(KvReuse(checkpoint, recompute=0.5, selection="first"), store)
    assert warm.pack(QUERY, PASSAGES).report.hits == 3
    bare = _packer(KvReuse(checkpoint, anchor=False), store)
    assert bare.pack(QUERY, PASSAGES).report.misses == 3
    bare.flush()
    assert _packer(Ape(checkpoint), store).pack(QUERY, PASSAGES).report.hits == 3


def test_kv_has_the_same_bits_whatever_is_encoded_beside_it(checkpoint):
    method = KvReuse(checkpoint, dtype="f32")
    passages = [Passage(str(n), "word " * n) for n in (1, 2, 3, 40, 40, 90)] + PASSAGES
    together = method.compress(passages, None)
    for passage, artifact in zip(passages, together, strict=True):
        (alone,) = method.compress([passage], None)
        assert artifact.keys.tobytes() == alone.keys.tobytes()
        assert artifact.values.tobytes() == alone.values.tobytes()


def test_another_prefix_model_or_precision_is_a_miss(checkpoint, make_checkpoint):
    makers = [
        Ape(checkpoint),
        Ape(checkpoint, instruction="Be brief."),
        Ape(checkpoint, dtype="f32"),
        Ape(make_checkpoint(1)),
        Ape(make_checkpoint(0, rope_parameters={"rope_type": "default", "rope_theta": 5e5})),
    ]
    assert len({maker.fingerprint.digest for maker in makers}) == len(makers)
    assert Ape(checkpoint, temperature=0.5).fingerprint == makers[0].fingerprint


@pytest.mark.parametrize("how", ["model", "instruction"])
def test_kv_for_another_decoder_falls_back_to_the_text(checkpoint, make_checkpoint, caplog, how):
    decoder = HFDecoder(checkpoint)
    method = Ape(make_checkpoint(1)) if how == "model" else Ape(checkpoint, instruction="Be brief.")
    packed = _packer(method).pack(QUERY, PASSAGES)
    with caplog.at_level(logging.WARNING):
        assert np.allclose(_score(decoder, packed), _score(decoder, packed.text))
    assert "another" in caplog.text


def test_memory_running_out_while_composing_falls_back_to_the_text(checkpoint, caplog, monkeypatch):
    decoder = HFDecoder(checkpoint)
    packed = _packer(Ape(checkpoint)).pack(QUERY, PASSAGES)
    wanted = _score(decoder, packed.text)

    def no_memory(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("ragpack.handoff.kv.compose_parallel", no_memory)
    with caplog.at_level(logging.WARNING):
        assert np.allclose(_score(decoder, packed), wanted)
    assert "allocate memory" in caplog.text


def test_a_passage_that_fell_back_is_encoded_at_the_hand_off(checkpoint):
    """Two passages from the store and one that came as text give what three from the store do."""
    decoder = HFDecoder(checkpoint)
    packed = _packer(KvReuse(checkpoint, recompute=0.0, dtype="f32")).pack(QUERY, PASSAGES)
    wanted = _score(decoder, packed)
    segments = list(packed.segments)
    segments[1] = type(segments[1])(segments[1].passage, segments[1].spans)
    mixed = type(packed)(packed.query, tuple(segments), packed.report)
    assert np.allclose(_score(decoder, mixed), wanted, atol=1e-5)


def test_a_passage_longer_than_the_window_is_named_and_passed_on_as_text(checkpoint):
    long = Passage("epic", "word " * 2000)
    with pytest.raises(CompressionError, match=r"'epic' has \d+ tokens .* split it"):
        Ape(checkpoint).compress([long], None)
    packed = _packer(Ape(checkpoint)).pack(QUERY, [*PASSAGES, long])
    assert packed.report.fallbacks == {"CompressionError": 1}


def test_empty_passages_are_dropped(checkpoint):
    empty = Passage("empty", "")
    (artifact,) = Ape(checkpoint).compress([empty], None)
    assert artifact.keys.shape[2] == 0
    packed = _packer(Ape(checkpoint), strict=True).pack(QUERY, [empty, *PASSAGES])
    assert len(packed.segments) == 3


def test_a_model_that_fails_the_gate_is_refused(make_checkpoint, tmp_path, monkeypatch):
    cohere = make_checkpoint(0, "CohereConfig")
    monkeypatch.setenv("RAGPACK_HOME", str(tmp_path))
    with pytest.raises(UnsupportedModel, match="rotation equals encoding"):
        KvReuse(cohere).compress(PASSAGES, None)


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0}, {"temperature": float("nan")}, {"scale": -1}, {"dtype": "f8"}],
)
def test_ape_refuses_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Ape(**settings)


@pytest.mark.parametrize(
    "settings", [{"recompute": -0.1}, {"recompute": 1.5}, {"selection": "luck"}]
)
def test_kv_reuse_refuses_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        KvReuse(**settings)


def test_smollm2_is_exact_end_to_end():
    """The real decoder: its gate passes, and recompute 1 from the store is the plain prompt."""
    decoder = HFDecoder(SMOLLM)
    packer = _packer(KvReuse(recompute=1.0, dtype="f32"), strict=True)
    packer.pack(QUERY, PASSAGES)
    packer.flush()
    packed = packer.pack(QUERY, PASSAGES)
    assert packed.report.hits == 3
    assert np.allclose(_score(decoder, packed), _score(decoder, packed.text), atol=1e-3)
    dialled = _packer(KvReuse(recompute=0.15), strict=True).pack(QUERY, PASSAGES)
    answer = decoder.generate(dialled, QUERY, max_new_tokens=12)
    assert "Vera Holm" in answer.text
