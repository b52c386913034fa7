"""What a hostile or broken store can return: each is refused, for the right reason, unallocated."""

import json
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from ragpack.codec import MAX_FRAME_BYTES, decode_frame, encode_frame
from ragpack.errors import CorruptEntry, IncompatibleEntry
from ragpack.keys import CacheKey
from ragpack.types import EmbedsArtifact, TextArtifact

KEY = CacheKey("tenant", "embeds", "fingerprint", "passage")
VECTORS = np.arange(6, dtype=np.float32).reshape(2, 3)
FRAME = encode_frame(KEY, EmbedsArtifact(VECTORS, spans=((0, 4), (5, 9))))
SECRET = b"the store does not know this"


def refused(data, secret=None, key=KEY):
    """The error with which ``data`` is refused, having taken no more memory than it is long."""
    tracemalloc.start()
    try:
        with pytest.raises(CorruptEntry) as caught:
            decode_frame(key, data, secret)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(data) + 200_000
    return caught.value


def sealed(header, payload=b"", magic=b"\x93RPK", version=1, header_bytes=None):
    """A frame as a forger makes it who knows everything but the secret: its checksum is right."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(head) if header_bytes is None else header_bytes
    body = struct.pack("<4sIQ", magic, version, size) + head + payload
    return body + blake3(body).digest()


def parts(frame):
    """Header and payload of a good frame."""
    _, _, size = struct.unpack_from("<4sIQ", frame)
    return json.loads(frame[16 : 16 + size]), frame[16 + size : -32]


def forged(**changes):
    """The good frame with other header fields and a right checksum."""
    header, payload = parts(FRAME)
    return sealed(header | changes, payload)


def retyped(dtype, shape):
    """The good frame whose vectors claim another type and shape."""
    header, _ = parts(FRAME)
    return forged(tensors=header["tensors"] | {"vectors": [dtype, shape]})


def test_the_forger_knows_his_trade():
    assert decode_frame(KEY, forged()).spans == ((0, 4), (5, 9))


def test_truncated_anywhere():
    reasons = [refused(FRAME[:size]).reason for size in range(len(FRAME))]
    assert set(reasons[:48]) == {"truncated"}
    assert set(reasons[48:]) == {"header length", "tag"}


@given(st.integers(0, 8 * len(FRAME) - 1), st.none() | st.just(SECRET))
def test_one_flipped_bit_anywhere(bit, secret):
    frame = bytearray(encode_frame(KEY, EmbedsArtifact(VECTORS), secret))
    bit %= 8 * len(frame)
    frame[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptEntry):
        decode_frame(KEY, frame, secret)


@given(st.binary(max_size=400))
def test_noise(data):
    with pytest.raises(CorruptEntry):
        decode_frame(KEY, data)


@given(st.binary(max_size=200))
def test_noise_with_a_right_checksum(header):
    with pytest.raises(CorruptEntry):
        decode_frame(KEY, sealed(header))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.sampled_from(["codec", "kind", "layout", "tensors"]), json_values)
def test_any_json_in_a_field_of_the_header(field, value):
    header, payload = parts(FRAME)
    if value == header[field] or (field == "layout" and isinstance(value, str)):
        return
    with pytest.raises(CorruptEntry):
        decode_frame(KEY, sealed(header | {field: value}, payload))


class Exploit:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_pickle_bytes():
    assert refused(pickle.dumps(Exploit())).reason == "magic"
    assert refused(sealed(pickle.dumps(Exploit()))).reason == "header"
    header, _ = parts(FRAME)
    assert refused(sealed(header, pickle.dumps(Exploit()))).reason == "length"


def test_swapped_key():
    other = CacheKey("another tenant", "embeds", "fingerprint", "passage")
    error = refused(encode_frame(other, EmbedsArtifact(VECTORS)))
    assert isinstance(error, IncompatibleEntry)
    assert error.reason == "key"


def test_wrong_secret():
    assert refused(encode_frame(KEY, EmbedsArtifact(VECTORS), b"another"), SECRET).reason == "tag"


def test_no_secret_where_one_is_asked_for():
    assert refused(FRAME, SECRET).reason == "tag"
    assert refused(encode_frame(KEY, EmbedsArtifact(VECTORS), SECRET)).reason == "tag"


def test_version_of_the_future():
    error = refused(sealed(*parts(FRAME), version=2))
    assert isinstance(error, IncompatibleEntry)
    assert error.reason == "version"


@pytest.mark.parametrize("size", [1 << 14 | 1, 1 << 40, (1 << 64) - 1])
def test_oversized_header(size):
    assert refused(sealed(b"{}", header_bytes=size)).reason == "header length"


def test_header_cap_holds_where_the_bytes_are_there():
    assert refused(sealed(b" " * (1 << 15))).reason == "header length"


@pytest.mark.parametrize("header", [b"[" * 16000, b"9" * 16000, b'{"a":' * 3000, b"\xff", b"[]"])
def test_header_that_is_no_object(header):
    assert refused(sealed(header)).reason == "header"


@pytest.mark.parametrize(
    "shape", [[1 << 20, 1 << 20], [1 << 62, 4], [10**30, 10**30], [2, 4], [2, 2], [2, 0]]
)
def test_length_bomb(shape):
    assert refused(retyped("f32", shape)).reason in {"length", "shape"}


def test_length_bomb_behind_a_zero():
    tensors = {"vectors": ["f32", [0, 1 << 62]]}
    head = json.dumps({"vectors": {"dtype": "F32", "shape": [0, 1 << 62], "data_offsets": [0, 0]}})
    head = head.replace(" ", "").encode()
    head += b" " * (-len(head) % 8)
    payload = len(head).to_bytes(8, "little") + head
    header = parts(FRAME)[0] | {"tensors": tensors}
    assert refused(sealed(header, payload)).reason == "shape"


@pytest.mark.parametrize("shape", [[6], [2, 3, 1], [3, 2], [], [2, -3], [2, 3.0], [2, True], "23"])
def test_wrong_shape(shape):
    assert refused(retyped("f32", shape)).reason in {"shape", "header"}


@pytest.mark.parametrize("dtype", ["f64", "bf16", "i32", "object", "F32", "", None, 4])
def test_wrong_dtype(dtype):
    assert refused(retyped(dtype, [2, 3])).reason in {"dtype", "header"}


def test_dtype_of_the_same_width_is_caught_by_the_payload():
    header, payload = parts(encode_frame(KEY, EmbedsArtifact(VECTORS.astype(np.float16))))
    header["tensors"]["vectors"] = ["i8", [2, 6]]
    assert refused(sealed(header, payload)).reason in {"length", "payload"}


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
def test_not_finite(value, dtype):
    header, payload = parts(encode_frame(KEY, EmbedsArtifact(np.zeros((2, 4), dtype))))
    item = np.array([value], dtype).tobytes()
    assert refused(sealed(header, payload[: -len(item)] + item)).reason == "not finite"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("kind", "kv", "kind"),
        ("kind", "pickle", "kind"),
        ("kind", ["kv"], "kind"),
        ("codec", "zstd", "codec"),
        ("codec", None, "codec"),
        ("layout", 5, "header"),
        ("tensors", {}, "tensors"),
        ("tensors", {"vectors": ["f32", [2, 3]], "more": ["u8", [1]]}, "tensors"),
        ("tensors", [], "header"),
    ],
)
def test_header_of_another_artifact(field, value, reason):
    assert refused(forged(**{field: value})).reason == reason


def test_text_that_is_not_utf8():
    key = CacheKey("tenant", "text", "fingerprint", "passage")
    header, payload = parts(encode_frame(key, TextArtifact(text="abcd")))
    frame = sealed(header, payload[:-4] + b"\xff\xfe\xfd\xfc")
    assert refused(frame, key=key).reason == "text"


def test_payload_with_more_bytes():
    header, payload = parts(FRAME)
    assert refused(sealed(header, payload + b"\0")).reason == "length"


def test_payload_header_of_its_own():
    header, payload = parts(FRAME)
    swapped = payload.replace(b'"data_offsets":[0,', b'"data_offsets":[8,')
    assert swapped != payload
    assert refused(sealed(header, swapped)).reason == "payload"


def test_a_frame_over_the_cap_is_not_even_hashed():
    data = np.zeros(MAX_FRAME_BYTES + 1, np.uint8)  # untouched pages: costs no memory
    assert refused(data.data).reason == "too large"
