"""What the packed retriever promises in LangChain and in LlamaIndex alike."""

import asyncio
import copy
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragpack.errors import ConfigError
from ragpack.protocols import Compressor
from ragpack.retrievers.langchain import RagpackCompressor
from ragpack.types import Artifact, Fingerprint, Passage, TextArtifact

NOTES = [
    ("1", "Apples keep. Pears do not.", {"page": 3}),
    ("2", "Nothing about fruit here.", {}),
    ("3", "", {}),
    ("4", "An apple a day. Apples are red. Rain again.", {"page": 7}),
    ("5", "Apples keep. Pears do not.", {}),
    ("6", "More Apples.", {}),
]


class Gate(Compressor):
    """Keeps everything, once it is let."""

    name = "gate"
    kind = "text"
    query_aware = True

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.name)

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        self.reached.set()
        assert self.open.wait(300), "nobody opened the gate"
        return [TextArtifact(((0, len(passage.text)),)) for passage in passages]


class Summary(Gate):
    """Reads all passages as one, as an abstractive method does."""

    name = "summary"
    scope = "set"

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        return [TextArtifact(text=f"{len(p.text.splitlines())} notes") for p in passages]


class Broken(Gate):
    name = "broken"

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        raise RuntimeError("no weights")


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


async def reached(gate: Gate) -> None:
    while not gate.reached.is_set():
        await asyncio.sleep(0.005)


# What comes back


async def test_kept_text_with_order_ids_and_metadata(face, make_packer, keyword):
    packer = make_packer(keyword)
    retriever = face.retriever(NOTES, packer)
    found = face.ask(retriever, "Apples")
    assert [(one.id, one.text) for one in found] == [
        ("1", "Apples keep."),
        ("4", "Apples are red."),
        ("6", "More Apples."),
    ]
    account = found[1].metadata.pop("ragpack")
    assert found[1].metadata == {"page": 7}
    assert account.pop("ms") > 0
    before, after = packer.counter.count([NOTES[3][1], "Apples are red."])
    assert account == {
        "method": "keyword",
        "kept": [[16, 31]],
        "tokens_in": before,
        "tokens_out": after,
        "rate": round(after / before, 4),
        "cache": "miss",
    }
    packer.flush()
    again = await face.aask(retriever, "Apples")
    assert [one.text for one in again] == [one.text for one in found]
    assert again[0].metadata["ragpack"]["cache"] == "hit"


def test_a_summary_of_all_names_its_sources(face, make_packer):
    retriever = face.retriever(NOTES[:2] + NOTES[3:4], make_packer(Summary()), k=2)
    (found,) = face.ask(retriever, "Apples")
    assert found.text == "2 notes"
    assert found.id not in {"1", "2"}
    account = found.metadata["ragpack"]
    assert account["sources"] == [
        {"id": "1", "metadata": {"page": 3}},
        {"id": "2", "metadata": {}},
    ]
    assert account["tokens_out"] < account["tokens_in"]


@pytest.mark.parametrize(
    ("k", "expected"),
    [(2, ["1", "4"]), (3, ["1", "4", "6"]), (9, ["1", "4", "6"]), (None, ["1", "4", "6"])],
)
def test_emptied_ones_and_twins_make_room_for_the_next(face, k, expected, make_packer, keyword):
    retriever = face.retriever(NOTES, make_packer(keyword), k=k)
    assert [one.id for one in face.ask(retriever, "Apples")] == expected
    assert face.ask(retriever, "Bananas") == []


async def test_bypass_gives_what_the_base_gives(face, monkeypatch, make_packer, keyword):
    retriever = face.retriever(NOTES, make_packer(keyword), k=3)
    monkeypatch.setenv("RAGPACK_BYPASS", "1")
    for found in (face.ask(retriever, "Apples"), await face.aask(retriever, "Apples")):
        assert [tuple(one) for one in found] == NOTES[:3]


@pytest.mark.parametrize("name", ["k", "fetch_k", "budget"])
@pytest.mark.parametrize("value", [0, -3])
def test_counts_below_one_are_refused(face, name, value, make_packer):
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, not {value}"):
        face.retriever(NOTES, make_packer(), **{name: value})


# Bad luck


@pytest.mark.parametrize("notes", [[], [("1", "", {})], [("1", " \n ", {})]])
@pytest.mark.parametrize("k", [None, 2])
def test_nothing_to_pack_gives_nothing(face, notes, k, make_packer):
    assert face.ask(face.retriever(notes, make_packer(), k=k), "?") == []


def test_a_query_of_100k_characters(face, make_recomp):
    retriever = face.retriever(NOTES, make_recomp(), k=2)
    assert len(face.ask(retriever, "Apples " * 14_286)) == 2


def test_a_broken_method_costs_compression_never_the_texts(face, make_packer):
    retriever = face.retriever(NOTES, make_packer(Broken()), k=3)
    found = face.ask(retriever, "?")
    assert [one.text for one in found] == [NOTES[0][1], NOTES[1][1], NOTES[3][1]]
    assert found[0].metadata["ragpack"]["reason"] == "RuntimeError"


def test_a_late_packer_gives_the_texts_as_they_are(face, make_packer, gate):
    retriever = face.retriever(NOTES[:1], make_packer(gate, deadline_ms=40))
    (found,) = face.ask(retriever, "?")
    assert found.text == NOTES[0][1]
    assert found.metadata["ragpack"]["reason"] == "deadline"


def test_redis_killed_in_the_middle(face, redis_server, make_packer, keyword, until):
    packer = make_packer(keyword, store=redis_server.url)
    retriever = face.retriever(NOTES, packer, k=2)

    def ask() -> set[str]:
        found = face.ask(retriever, "Apples")
        assert [one.text for one in found] == ["Apples keep.", "Apples are red."]
        packer.flush()
        return {one.metadata["ragpack"]["cache"] for one in found}

    assert ask() == {"miss"}
    assert ask() == {"hit"}
    redis_server.kill()
    assert ask() == {"unavailable"}
    redis_server.start()
    until(lambda: ask() == {"hit"})  # the store is given another try after a while


# Many calls at once


async def test_the_loop_runs_on_while_the_packer_works(face, make_packer, gate):
    call = asyncio.create_task(face.aask(face.retriever(NOTES, make_packer(gate)), "?"))
    await reached(gate)
    gate.open.set()  # reached only if the call above does not hold the loop
    assert (await call)[0].text == NOTES[0][1]


async def test_the_loop_runs_on_while_a_compressor_works(make_packer, gate):
    compressor = RagpackCompressor(packer=make_packer(gate))
    call = asyncio.create_task(compressor.acompress_documents([Document("Tea.")], "?"))
    await reached(gate)
    gate.open.set()
    assert [document.page_content for document in await call] == ["Tea."]


async def test_a_call_may_be_cancelled_and_the_next_one_works(face, make_packer, gate):
    retriever = face.retriever(NOTES, make_packer(gate), k=1)
    call = asyncio.create_task(face.aask(retriever, "?"))
    await reached(gate)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.open.set()
    assert len(await face.aask(retriever, "?")) == 1


QUERIES = [f"What about {word}?" for word in ["leave", "pay", "tools", "travel", "badges"]] * 10


async def test_fifty_calls_on_one_retriever(face, handbook, make_recomp):
    notes = [(d.id, d.page_content, d.metadata) for d in handbook[:12]]
    retriever = face.retriever(notes, make_recomp(top_n=4), k=3)

    def kept(found: Sequence[Any]) -> list[tuple[str, str]]:
        return [(one.id, one.text) for one in found]

    alone = {query: kept(face.ask(retriever, query)) for query in set(QUERIES)}
    assert len({str(one) for one in alone.values()}) == len(alone)
    with ThreadPoolExecutor(50) as threads:
        threaded = list(threads.map(lambda query: face.ask(retriever, query), QUERIES))
    gathered = await asyncio.gather(*(face.aask(retriever, query) for query in QUERIES))
    for together in (threaded, gathered):
        assert [kept(found) for found in together] == [alone[query] for query in QUERIES]


# One thousand random texts and more


TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80)
RANDOM = st.tuples(
    st.text(min_size=1, max_size=3),
    TEXTS,
    st.dictionaries(
        st.text(max_size=3) | st.just("title"), st.none() | st.floats() | TEXTS, max_size=3
    ),
)


@settings(deadline=None)
@given(
    notes=st.lists(RANDOM, min_size=5, max_size=25, unique_by=lambda note: note[0]),
    which=st.sampled_from([0, 0, 0, 1]),
    k=st.none() | st.integers(1, 9),
    budget=st.none() | st.integers(1, 60),
)
def test_random_texts(face, packers, notes, which, k, budget):
    before = copy.deepcopy(notes)
    found = face.ask(face.retriever(notes, packers[which], k=k, budget=budget), "Who?")
    assert repr(notes) == repr(before)  # repr, since NaN is not equal to itself
    useful = {text for _, text, _ in notes if text.strip()}
    if budget is None and (which == 0 or k is not None):
        assert len(found) == (len(useful) if k is None else min(k, len(useful)))
    left = iter(notes)
    for one in found:
        kept = one.metadata.pop("ragpack")["kept"]
        assert any(_made_of(one, note, kept) for note in left)  # one after the other: in order
    if budget is not None:
        joined = "\n\n".join(one.text for one in found)
        assert packers[which].counter.count([joined])[0] <= budget


def _made_of(found: Any, note: tuple[str, str, dict[str, Any]], kept: list[list[int]]) -> bool:
    ident, text, metadata = note
    parts = " ".join(text[start:end] for start, end in kept)
    return (found.id, found.text, repr(found.metadata)) == (ident, parts, repr(metadata))
