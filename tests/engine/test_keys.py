"""Keys: equal for equal things, different for different ones, on every machine."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from ragpack.digest import digest_fields
from ragpack.keys import CacheKey, make_key, namespace_prefix
from ragpack.types import Fingerprint, Passage

text = st.text(st.characters(), max_size=20)
passage = st.builds(Passage, id=text, text=text, title=text)
fingerprint = st.builds(
    Fingerprint,
    method=text,
    model=text,
    revision=text,
    weights=text,
    params=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
    version=st.integers(1, 3),
)
key = st.builds(
    CacheKey,
    namespace=text.filter(bool),
    kind=st.sampled_from(["text", "embeds", "kv"]),
    fingerprint=text,
    passage=text,
    query=st.none() | text,
)


@given(st.lists(text, max_size=5), st.lists(text, max_size=5))
def test_digests_are_injective_over_fields(one: list[str], other: list[str]) -> None:
    assert (digest_fields(*one) == digest_fields(*other)) == (one == other)


@given(key, key)
def test_keys_agree_exactly_where_every_field_does(one: CacheKey, other: CacheKey) -> None:
    assert (str(one) == str(other)) == (one == other)


@given(passage, passage)
def test_a_passage_digest_reads_title_and_text_only(one: Passage, other: Passage) -> None:
    same = (one.title, one.text) == (other.title, other.text)
    assert (one.digest == other.digest) == same


@given(fingerprint, fingerprint)
def test_fingerprints_differ_in_every_field(one: Fingerprint, other: Fingerprint) -> None:
    assert (one.digest == other.digest) == (one == other)


def test_a_key_starts_with_its_namespace() -> None:
    made = make_key("tenant", "text", Fingerprint("m"), Passage("p", "text"), "q")
    assert str(made).startswith(namespace_prefix("tenant"))
    assert set(str(made)) <= set("0123456789abcdef:")
    assert make_key("tenant", "text", Fingerprint("m"), Passage("p", "text")) != made


def test_keys_are_the_same_in_another_process() -> None:
    program = (
        "from ragpack.keys import make_key; from ragpack.types import *;"
        "print(make_key('n', 'text', Fingerprint('m', params={'b': 1, 'a': 2}),"
        " Passage('p', 'täxt'), 'q'))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    # Written down, so that a change of the encoding cannot pass unseen.
    assert seen == {
        str(
            make_key(
                "n", "text", Fingerprint("m", params={"a": 2, "b": 1}), Passage("p", "täxt"), "q"
            )
        )
        + "\n"
    }
