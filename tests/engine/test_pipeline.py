"""One call that does not fail: hits, misses, deadlines, broken methods, dead stores."""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ragpack import ContextPacker, Passage
from ragpack.errors import (
    BudgetError,
    CompressionError,
    CompressionTimeout,
    ConfigError,
    UnknownPluginError,
)
from ragpack.types import TextArtifact

QUERY = "who wrote the program"


def packer_for(method, store="memory://", **settings):
    return ContextPacker(method, store=store, **settings)


def test_second_request_comes_from_the_store(scripted, passages) -> None:
    method = scripted()
    with packer_for(method) as packer:
        cold = packer.pack(QUERY, passages)
        packer.flush()
        warm = packer.pack(QUERY, passages)
    assert [row.cache for row in cold.report.passages] == ["miss"] * 3
    assert [row.cache for row in warm.report.passages] == ["hit"] * 3
    assert warm.text == cold.text
    assert warm.segments == cold.segments
    assert len(method.calls) == 1


def test_a_query_aware_method_is_asked_again_for_another_query(scripted, passages) -> None:
    method = scripted()
    with packer_for(method) as packer:
        packer.pack(QUERY, passages)
        packer.flush()
        other = packer.pack("another query", passages)
    assert other.report.misses == 3


def test_namespaces_do_not_see_each_other(scripted, passages, redis_url) -> None:
    for tenant in ("one", "two"):
        with packer_for(scripted(), redis_url, namespace=tenant) as packer:
            assert packer.pack(QUERY, passages).report.hits == 0
    with packer_for(scripted(), redis_url, namespace="one") as packer:
        assert packer.pack(QUERY, passages).report.hits == 3


def test_spans_point_into_the_original(passages) -> None:
    with packer_for("recomp-extractive", top_n=2) as packer:
        packed = packer.pack(QUERY, passages)
    by_id = {p.id: p for p in passages}
    assert [s.passage.id for s in packed.segments] == sorted(s.passage.id for s in packed.segments)
    for segment in packed.segments:
        for start, end in segment.spans:
            assert by_id[segment.passage.id].text[start:end] in packed.text


def test_identity_is_the_plain_prompt(passages) -> None:
    with packer_for("identity") as packer:
        packed = packer.pack(QUERY, passages)
    assert packed.text == "\n\n".join(p.full_text for p in passages)
    assert packed.report.rate == 1.0
    assert packed.report.tokens_in == packed.report.tokens_out


def test_tokens_are_those_of_the_decoder(scripted, passages, counter) -> None:
    with packer_for(scripted()) as packer:
        packed = packer.pack(QUERY, passages, budget=25)
    assert packed.report.tokens_out == counter.count([packed.text])[0] <= 25
    plain = "\n\n".join(p.full_text for p in passages)
    assert packed.report.tokens_in == counter.count([plain])[0]


def test_duplicates_are_packed_once_and_reported(scripted, passages) -> None:
    twin = Passage("twin", passages[0].text, passages[0].title)
    with packer_for(scripted()) as packer:
        packed = packer.pack(QUERY, [*passages, twin])
    assert [segment.passage.id for segment in packed.segments] == ["a", "b", "c"]
    assert [row.id for row in packed.report.passages] == ["a", "b", "c", "twin"]
    assert packed.report.passages[3].reason == "duplicate of a"


def test_no_passages_give_an_empty_context(scripted) -> None:
    with packer_for(scripted()) as packer:
        packed = packer.pack(QUERY, [])
    assert (packed.text, packed.segments, packed.report.rate) == ("", (), 1.0)


def test_one_bad_passage_is_passed_on_and_spoils_no_other(scripted, passages, caplog) -> None:
    def breaks_on_b(batch) -> None:
        if any(passage.id == "b" for passage in batch):
            raise RuntimeError("cannot read b")

    with packer_for(scripted(breaks_on_b)) as packer, caplog.at_level(logging.WARNING):
        first = packer.pack(QUERY, passages)
        packer.pack(QUERY, passages)
    rows = {row.id: row for row in first.report.passages}
    assert rows["b"].reason == "RuntimeError"
    assert rows["b"].kept == ((0, len(passages[1].text)),)
    assert first.report.fallbacks == {"RuntimeError": 1}
    assert rows["a"].reason == rows["c"].reason == ""
    assert [r.message for r in caplog.records if "cannot read b" in r.message] == [
        "RuntimeError (said once, then only counted): cannot read b"
    ]
    assert packer.cache.counts["RuntimeError"] == 2


def test_strict_raises_what_broke(scripted, passages) -> None:
    def breaks(batch) -> None:
        raise CompressionError("passage a: broken")

    with (
        packer_for(scripted(breaks), strict=True) as packer,
        pytest.raises(CompressionError, match="passage a: broken"),
    ):
        packer.pack(QUERY, passages)


def test_a_method_that_loses_passages_is_not_believed(scripted, passages) -> None:
    class Loses(scripted):
        def compress(self, passages, query):
            return super().compress(passages, query)[:-1]

    with packer_for(Loses()) as packer:
        packed = packer.pack(QUERY, passages)
    assert packed.report.fallbacks == {"ValueError": 3}
    assert packed.text == "\n\n".join(p.full_text for p in passages)


def test_select_that_breaks_falls_back_to_the_text(scripted, passages) -> None:
    class Breaks(scripted):
        def select(self, query, passages, artifacts, budget=None):
            raise ZeroDivisionError

    with packer_for(Breaks()) as packer:
        packed = packer.pack(QUERY, passages)
    assert packed.report.fallbacks == {"ZeroDivisionError": 3}
    assert packed.text == "\n\n".join(p.full_text for p in passages)


def test_deadline_passes_the_text_on_and_the_work_is_not_lost(scripted, passages) -> None:
    finish = threading.Event()
    method = scripted(lambda _: finish.wait(300))
    with packer_for(method, deadline_ms=50) as packer:
        late = packer.pack(QUERY, passages)  # returns although the method is still at it
        assert late.report.fallbacks == {"deadline": 3}
        assert late.text == "\n\n".join(p.full_text for p in passages)
        finish.set()
        packer.cache.close()  # waits for what goes on behind the deadline
        with packer_for(method, packer.store) as patient:
            assert patient.pack(QUERY, passages).report.hits == 3
    assert len(method.calls) == 1


def test_deadline_is_an_error_in_strict_mode(scripted, passages) -> None:
    finish = threading.Event()
    method = scripted(lambda _: finish.wait(300))
    with packer_for(method, deadline_ms=50, strict=True) as packer:
        with pytest.raises(CompressionTimeout):
            packer.pack(QUERY, passages)
        finish.set()


def joining(packer: ContextPacker) -> list[object]:
    """A list that grows by one with each request that has joined the packer's flights."""
    flights, joined = packer.cache._flights, []
    join = flights.join

    def counted(keys):
        found = join(keys)
        joined.append(keys)
        return found

    flights.join = counted
    return joined


def test_equal_requests_at_once_compute_once(scripted, passages, until) -> None:
    method = scripted(lambda _: until(lambda: len(joined) == 8))
    with packer_for(method) as packer, ThreadPoolExecutor(8) as threads:
        joined = joining(packer)
        texts = list(threads.map(lambda _: packer.pack(QUERY, passages).text, range(8)))
    assert len(set(texts)) == 1
    assert len(method.calls) == 1


def test_an_interrupted_flight_leaves_nobody_waiting(scripted, passages, until) -> None:
    def interrupted(batch) -> None:
        until(lambda: len(joined) == 2)
        raise KeyboardInterrupt

    with packer_for(scripted(interrupted)) as packer, ThreadPoolExecutor(2) as threads:
        joined = joining(packer)
        first = threads.submit(packer.pack, QUERY, passages)
        until(lambda: joined)
        second = threads.submit(packer.pack, QUERY, passages)
        with pytest.raises(KeyboardInterrupt):
            first.result(120)
        assert second.result(120).report.fallbacks == {"CompressionError": 3}


def test_bypass_hands_the_plain_prompt_on(scripted, passages, monkeypatch) -> None:
    monkeypatch.setenv("RAGPACK_BYPASS", "1")
    method = scripted()
    with packer_for(method, budget=5) as packer:
        packed = packer.pack(QUERY, [*passages, passages[0]])
    assert packed.text == "\n\n".join(p.full_text for p in [*passages, passages[0]])
    assert {row.cache for row in packed.report.passages} == {"bypassed"}
    assert method.calls == []


def test_redis_killed_and_restarted(scripted, passages, redis_server, until) -> None:
    with packer_for(scripted(), redis_server.url) as packer:
        packer.pack(QUERY, passages)
        packer.flush()
        assert packer.pack(QUERY, passages).report.hits == 3
        redis_server.kill()
        down = packer.pack(QUERY, passages)
        assert {row.cache for row in down.report.passages} == {"unavailable"}
        assert down.report.fallbacks == {}
        packer.flush()
        assert packer.cache.counts["write failed"] == 3
        redis_server.start()

        def hits() -> int:
            up = packer.pack(QUERY, passages)
            packer.flush()
            return up.report.hits

        until(lambda: hits() == 3)


def test_a_damaged_entry_is_refused_counted_and_healed(scripted, passages) -> None:
    with packer_for(scripted()) as packer:
        good = packer.pack(QUERY, passages)
        packer.flush()
        key = str(packer.cache.keys(passages[:1], QUERY)[0])
        value = bytearray(packer.store.get_many([key])[0])
        value[-40] ^= 1
        packer.store.put_many({key: bytes(value)})
        damaged = packer.pack(QUERY, passages)
        packer.flush()
        healed = packer.pack(QUERY, passages)
    assert damaged.text == good.text
    assert [row.cache for row in damaged.report.passages] == ["rejected", "hit", "hit"]
    assert damaged.report.passages[0].reason == "entry rejected: tag"
    assert packer.cache.counts["entry rejected: tag"] == 1
    assert healed.report.hits == 3


def test_budget_of_nothing_is_empty_or_an_error(scripted, passages) -> None:
    with packer_for(scripted()) as packer:
        packed = packer.pack(QUERY, passages, budget=1)
    assert packed.text == ""
    assert {row.reason for row in packed.report.passages} == {"budget"}
    with packer_for(scripted(), strict=True) as strict, pytest.raises(BudgetError):
        strict.pack(QUERY, passages, budget=1)


@pytest.mark.parametrize(
    "odd", ["", "x", "\x00", "\ud800", "漢字。仮名。", "🙂🙂", " \n ", "a" * 100_000]
)
@pytest.mark.parametrize("method", ["identity", "recomp-extractive"])
def test_odd_passages_give_a_context(method: str, odd: str) -> None:
    settings = {"top_n": 1000} if method == "recomp-extractive" else {}
    with packer_for(method, **settings) as packer:
        packed = packer.pack("what?", [Passage("p", odd), Passage("q", "A plain sentence.")])
    assert "A plain sentence." in packed.text
    assert packed.report.tokens_out <= packed.report.tokens_in


def test_async_pack_leaves_the_loop_free(scripted, passages) -> None:
    finish = threading.Event()

    async def both(packer: ContextPacker) -> str:
        packing = asyncio.create_task(packer.apack(QUERY, passages))
        await asyncio.sleep(0.05)
        finish.set()  # only a free loop comes to this line
        return (await packing).text

    with packer_for(scripted(lambda _: finish.wait(300))) as packer:
        text = asyncio.run(both(packer))
        assert finish.is_set()
        assert text == packer.pack(QUERY, passages).text


def test_settings_and_names_are_checked() -> None:
    with pytest.raises(UnknownPluginError, match="did you mean 'recomp-extractive'"):
        ContextPacker("recomp-extractiv", store="memory://")
    with pytest.raises(ConfigError, match=r"no setting top_m; it has: .*top_n"):
        ContextPacker("recomp-extractive", store="memory://", top_m=3)
    with pytest.raises(ConfigError, match="at least 1 token"):
        ContextPacker("identity", store="memory://", budget=0)
    with pytest.raises(UnknownPluginError, match="no store named 'redsi'"):
        ContextPacker("identity", store="redsi://x")


def test_a_toml_file_is_the_same_packer(tmp_path: Path, passages) -> None:
    path = tmp_path / "ragpack.toml"
    path.write_text('[ragpack]\nmethod = "recomp-extractive"\nstore = "memory://"\ntop_n = 2\n')
    with (
        ContextPacker.from_toml(path) as packer,
        packer_for("recomp-extractive", top_n=2) as same,
    ):
        assert packer.pack(QUERY, passages).text == same.pack(QUERY, passages).text
    path.write_text("[other]\n")
    with pytest.raises(ConfigError, match=r"\[ragpack\]"):
        ContextPacker.from_toml(path)


def test_a_method_of_the_whole_set_names_every_source(scripted, passages) -> None:
    class Summary(scripted):
        scope = "set"

        def compress(self, passages, query):
            super().compress(passages, query)
            return [TextArtifact(text=f"{len(p.text)} letters") for p in passages]

    method = Summary()
    with packer_for(method) as packer:
        cold = packer.pack(QUERY, passages)
        packer.flush()
        warm = packer.pack(QUERY, passages)
        other = packer.pack(QUERY, passages[::-1])
    together = "\n".join(p.full_text for p in passages)
    assert cold.text == warm.text == f"{len(together)} letters"
    assert [row.id for row in cold.report.passages] == ["a", "b", "c"]
    assert cold.report.passages[1].reason == "together with a"
    assert sum(row.tokens_out for row in cold.report.passages) == cold.report.tokens_out
    assert all(row.tokens_in for row in cold.report.passages)
    assert (warm.report.hits, other.report.hits) == (3, 0)


def test_a_broken_method_of_the_whole_set_falls_back_to_each_passage(scripted, passages) -> None:
    class Breaks(scripted):
        scope = "set"

        def compress(self, passages, query):
            raise RuntimeError

    with packer_for(Breaks()) as packer:
        packed = packer.pack(QUERY, passages)
    assert packed.text == "\n\n".join(p.full_text for p in passages)
    assert packed.report.fallbacks == {"RuntimeError": 3}
