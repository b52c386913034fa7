"""Round trips of frames: what goes in comes out, byte for byte the same each time."""

import multiprocessing
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ragpack.codec import decode_frame, encode_frame
from ragpack.errors import CorruptEntry, IncompatibleEntry
from ragpack.keys import CacheKey
from ragpack.types import EmbedsArtifact, KVArtifact, TextArtifact

KINDS = {TextArtifact: "text", EmbedsArtifact: "embeds", KVArtifact: "kv"}
FINITE = {"allow_nan": False, "allow_infinity": False}

secrets = st.none() | st.binary(max_size=40)
spans = st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)), max_size=9).map(tuple)
texts = st.none() | st.text(st.characters(exclude_categories=()), max_size=50)


@st.composite
def text_artifacts(draw):
    kept = draw(spans)
    scores = st.lists(st.floats(**FINITE), min_size=len(kept), max_size=len(kept)).map(tuple)
    return TextArtifact(kept, draw(st.just(()) | scores), draw(texts))


@st.composite
def embeds_artifacts(draw):
    n, d, k = (draw(st.integers(0, 5)) for _ in "ndk")
    dtype = draw(st.sampled_from(["<f4", ">f4", "<f2", "i1"]))
    elements = st.floats(width=16, **FINITE) if dtype != "i1" else None
    vectors = draw(hnp.arrays(dtype, (d, n), elements=elements)).T  # not contiguous
    return EmbedsArtifact(
        vectors,
        draw(st.just(()) | st.lists(st.just((3, 7)), min_size=n, max_size=n).map(tuple)),
        draw(st.none() | hnp.arrays(np.int32, (n, k))),
        draw(st.none() | hnp.arrays(np.float32, n, elements=st.floats(width=32, **FINITE))),
    )


@st.composite
def kv_artifacts(draw):
    shape = tuple(draw(st.integers(0, 4)) for _ in range(4))
    dtype, words = draw(st.sampled_from([("bf16", np.uint16), ("f16", "f2"), ("f32", "f4")]))
    if dtype == "bf16":
        elements = st.integers(0, 0x7F7F) | st.integers(0x8000, 0xFF7F)
    else:
        elements = st.floats(width=16, **FINITE)
    keys, values = (draw(hnp.arrays(words, shape, elements=elements)) for _ in "kv")
    layout = draw(st.sampled_from(["pre-rope", "post-rope@16"]))
    return KVArtifact(keys, values, np.arange(shape[2], dtype=np.int32), layout, dtype)


def fields(artifact):
    names = getattr(type(artifact), "__slots__", ())
    return {name: getattr(artifact, name) for name in names}


def assert_same(left, right):
    assert type(left) is type(right)
    for name, value in fields(left).items():
        other = fields(right)[name]
        if isinstance(value, np.ndarray):
            assert value.dtype.newbyteorder("<") == other.dtype
            np.testing.assert_array_equal(value, other)
        else:
            assert value == other


def key_of(artifact):
    return CacheKey("tenant", KINDS[type(artifact)], "fingerprint", "passage")


@settings(max_examples=300)
@given(text_artifacts() | embeds_artifacts() | kv_artifacts(), secrets)
def test_every_artifact_comes_back_as_it_was(artifact, secret):
    key = key_of(artifact)
    assert_same(artifact, decode_frame(key, encode_frame(key, artifact, secret), secret))


@given(embeds_artifacts(), secrets)
def test_equal_artifacts_give_equal_bytes(artifact, secret):
    key = key_of(artifact)
    frame = encode_frame(key, artifact, secret)
    assert encode_frame(key, decode_frame(key, frame, secret), secret) == frame


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_arrays_are_views_of_the_buffer(kind):
    artifact = EmbedsArtifact(np.ones((2, 3), np.float32))
    data = kind(encode_frame(key_of(artifact), artifact))
    vectors = decode_frame(key_of(artifact), data).vectors
    assert np.shares_memory(vectors, np.frombuffer(data, np.uint8))
    assert vectors.flags.aligned
    assert vectors.flags.writeable is (kind is bytearray)


def test_the_payload_is_a_safetensors_document():
    artifact = KVArtifact(
        np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4),
        np.zeros((1, 2, 3, 4), np.float32),
        np.array([5, 6, 7], np.int32),
        "pre-rope",
        "f32",
    )
    frame = encode_frame(key_of(artifact), artifact)
    _, _, header_bytes = struct.unpack_from("<4sIQ", frame)
    tensors = safetensors.numpy.load(frame[16 + header_bytes : -32])
    np.testing.assert_array_equal(tensors["keys"], artifact.keys)
    np.testing.assert_array_equal(tensors["values"], artifact.values)
    np.testing.assert_array_equal(tensors["token_ids"], artifact.token_ids)


def decode_in_child(connection, key, frame):
    connection.send(decode_frame(key, frame).vectors.shape)


def test_large_frames_are_read_after_a_fork():
    artifact = EmbedsArtifact(np.zeros((4096, 256), np.float32))
    key = key_of(artifact)
    frame = encode_frame(key, artifact)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=decode_in_child, args=(there, key, frame))
    child.start()
    answered = here.poll(30)
    child.kill()
    child.join()
    assert answered, "the child hangs"
    assert here.recv() == (4096, 256)


ONES = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("artifact", "reason"),
    [
        (EmbedsArtifact(ONES * np.nan), "not finite"),
        (EmbedsArtifact(ONES * -np.inf), "not finite"),
        (TextArtifact(((0, 1),), (float("inf"),)), "not finite"),
        (EmbedsArtifact(ONES[0]), "shape"),
        (EmbedsArtifact(ONES, spans=((0, 1),)), "shape"),
        (TextArtifact(((0, 1),), (0.5, 0.5)), "shape"),
        (EmbedsArtifact(ONES.astype(np.complex64)), "dtype"),
        (EmbedsArtifact(ONES.astype(object)), "dtype"),
        (KVArtifact(ONES, ONES, np.zeros(3, np.int32), "pre-rope", "bf16"), "dtype"),
    ],
)
def test_what_could_not_be_read_is_not_written(artifact, reason):
    with pytest.raises(CorruptEntry) as caught:
        encode_frame(key_of(artifact), artifact)
    assert caught.value.reason == reason


def test_a_frame_holds_the_kind_that_its_key_names():
    key = key_of(EmbedsArtifact(ONES))
    with pytest.raises(IncompatibleEntry) as caught:
        encode_frame(key, TextArtifact())
    assert caught.value.reason == "kind"


@pytest.mark.parametrize("field", ["namespace", "kind", "fingerprint", "passage", "query"])
def test_another_key_does_not_open_the_frame(field):
    values = {"namespace": "a", "kind": "text", "fingerprint": "b", "passage": "c", "query": "d"}
    frame = encode_frame(CacheKey(**values), TextArtifact())
    with pytest.raises(IncompatibleEntry) as caught:
        decode_frame(CacheKey(**values | {field: "kv"}), frame)
    assert caught.value.reason == "key"
