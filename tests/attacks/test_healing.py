"""A damaged entry is refused, counted with its reason, computed again, and whole the next time."""

import pickle
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from blake3 import blake3

from ragpack.cache import ArtifactCache
from ragpack.codec import encode_frame
from ragpack.protocols import Compressor
from ragpack.registry import open_store
from ragpack.types import Artifact, EmbedsArtifact, Fingerprint, Passage


class Lengths(Compressor):
    """One vector for each passage; the smallest method whose artifacts are tensors."""

    name = "lengths"
    kind = "embeds"
    query_aware = False

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.name)

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        return [EmbedsArtifact(np.full((1, 4), len(p.text), np.float32)) for p in passages]


PASSAGE = Passage("p", "seven.")
SECRET = b"not known to the store"
VECTORS = Lengths().compress([PASSAGE], None)[0].vectors


def nan(frame: bytes) -> bytes:
    """The last number made NaN, as a forger without the secret can do it."""
    body = frame[:-36] + np.float32(np.nan).tobytes()
    return body + blake3(body).digest()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda frame: frame[:30],
    "magic": lambda frame: pickle.dumps(frame),
    "version": lambda frame: frame[:4] + b"\x63\0\0\0" + frame[8:],
    "header length": lambda frame: frame[:8] + b"\xff" * 8 + frame[16:],
    "tag": lambda frame: frame[:-40] + bytes([frame[-40] ^ 1]) + frame[-39:],
    "not finite": nan,
}


@pytest.fixture(params=["memory", "lmdb", "redis"])
def store(request, tmp_path):
    urls = {"memory": "memory://", "lmdb": f"lmdb://{tmp_path / 'store'}"}
    redis = request.param == "redis"
    opened = open_store(request.getfixturevalue("redis_url") if redis else urls[request.param])
    yield opened
    opened.close()


def assert_heals(cache: ArtifactCache, reason: str) -> None:
    refused, healed = cache.fetch([PASSAGE], None)[0], None
    assert (refused.result, refused.reason) == ("rejected", f"entry rejected: {reason}")
    np.testing.assert_array_equal(refused.artifact.vectors, VECTORS)
    assert cache.counts[refused.reason] == 1
    cache.flush()
    healed = cache.fetch([PASSAGE], None)[0]
    assert healed.result == "hit"
    np.testing.assert_array_equal(healed.artifact.vectors, VECTORS)
    cache.close()


@pytest.mark.parametrize("reason", DAMAGE)
def test_a_damaged_entry_heals(store, reason):
    cache = ArtifactCache(Lengths(), store, namespace="tenant")
    key = cache.keys([PASSAGE])[0]
    frame = encode_frame(key, EmbedsArtifact(VECTORS))
    store.put_many({str(key): DAMAGE[reason](frame)})
    assert_heals(cache, reason)


def test_an_entry_moved_between_tenants_heals(store):
    own, other = (ArtifactCache(Lengths(), store, namespace=name) for name in ("own", "other"))
    foreign = encode_frame(other.keys([PASSAGE])[0], EmbedsArtifact(VECTORS + 1), SECRET)
    store.put_many({str(own.keys([PASSAGE])[0]): foreign})
    other.close()
    own.close()
    assert_heals(ArtifactCache(Lengths(), store, namespace="own", secret=SECRET), "key")


def test_a_forgery_without_the_secret_heals(store):
    cache = ArtifactCache(Lengths(), store, namespace="tenant", secret=SECRET)
    key = cache.keys([PASSAGE])[0]
    store.put_many({str(key): encode_frame(key, EmbedsArtifact(VECTORS + 1))})
    assert_heals(cache, "tag")
