"""Requests share the runs of the encoder."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ragpack import config
from ragpack.models import load_encoder
from ragpack.pipeline import make_compressor
from ragpack.service import Settings, batching
from ragpack.service.batching import MergingEncoder
from ragpack.service.catalogue import Catalogue
from ragpack.service.encoders import Encoders
from ragpack.service.metrics import Metrics
from ragpack.types import Fingerprint


class Held:
    """Lengths of texts as their vectors; each run waits until one is let go."""

    dim = 1
    fingerprint = Fingerprint("held")

    def __init__(self):
        self.runs = []
        self.go = threading.Semaphore(0)

    def encode(self, texts):
        self.runs.append(list(texts))
        assert self.go.acquire(timeout=300)
        return np.array([[len(text)] for text in texts], np.float32)


class Broken(Held):
    """One that cannot read a text."""

    def encode(self, texts):
        if any(text.startswith("wrong") for text in texts):
            raise ValueError("no such text")
        return np.array([[len(text)] for text in texts], np.float32)


def test_what_comes_while_the_encoder_runs_shares_the_next_run(until):
    encoder, metrics = Held(), Metrics()
    merging = MergingEncoder(encoder, encoder.encode, metrics)
    with ThreadPoolExecutor(8) as callers:
        first = callers.submit(merging.encode, ["a", "a"])
        until(lambda: encoder.runs)
        asked = [["b" * n, "c"] for n in range(7)]
        others = [callers.submit(merging.encode, texts) for texts in asked]
        until(lambda: merging._jobs.qsize() == len(others))
        encoder.go.release(9)
        assert first.result().tolist() == [[1], [1]]
        assert [other.result().tolist() for other in others] == [[[n], [1]] for n in range(7)]
    merging.close()
    assert [len(texts) for texts in encoder.runs] == [2, 14]
    assert metrics.registry.get_sample_value("ragpack_batch_requests_sum") == 8


def test_a_lone_query_is_encoded_where_it_is_asked(until):
    encoder, elsewhere = Held(), Held()
    merging = MergingEncoder(encoder, elsewhere.encode, Metrics())
    with ThreadPoolExecutor(2) as callers:
        lone = callers.submit(merging.encode, ["one"])
        until(lambda: encoder.runs)
        second = callers.submit(merging.encode, ["another"])
        until(lambda: elsewhere.runs)
        encoder.go.release(9)
        elsewhere.go.release(9)
        assert (lone.result().tolist(), second.result().tolist()) == ([[3]], [[7]])
    assert merging.encode(["a", "b"]).tolist() == [[1], [1]]
    assert merging.encode(["alone"]).tolist() == [[5]]
    merging.close()
    assert encoder.runs == [["one"], ["alone"]]
    assert elsewhere.runs == [["another"], ["a", "b"]]


def test_what_little_is_asked_goes_between_the_runs_of_a_large_job(until, monkeypatch):
    monkeypatch.setattr(batching, "_SHARE_SECONDS", 0.0)  # the least share, however fast this is
    encoder = Held()
    merging = MergingEncoder(encoder, encoder.encode, Metrics())
    passages = ["p" * size for size in (1200, 600, 400, 4000, 1800)]
    with ThreadPoolExecutor(2) as callers:
        index = callers.submit(merging.encode, passages)
        until(lambda: encoder.runs)
        queries = callers.submit(merging.encode, ["how", "long?"])
        until(lambda: merging._jobs.qsize())
        encoder.go.release(2)
        assert queries.result(300).tolist() == [[3], [5]]
        until(lambda: len(encoder.runs) == 3)
        assert not index.done()
        encoder.go.release(9)
        assert index.result(300).tolist() == [[1200], [600], [400], [4000], [1800]]
    merging.close()
    runs = [[len(text) for text in texts] for texts in encoder.runs]
    assert runs == [[1200, 600], [400, 3, 5], [4000], [1800]]


def test_a_lone_query_does_not_wait_for_a_large_job(until):
    encoder, elsewhere = Held(), Held()
    merging = MergingEncoder(encoder, elsewhere.encode, Metrics())
    with ThreadPoolExecutor(1) as callers:
        index = callers.submit(merging.encode, ["p", "q"])
        until(lambda: elsewhere.runs)
        encoder.go.release()
        assert merging.encode(["how long?"]).tolist() == [[9]]
        assert not index.done()
        elsewhere.go.release()
    merging.close()


def test_what_is_asked_before_the_end_is_finished_in_shares(until):
    encoder = Held()
    merging = MergingEncoder(encoder, encoder.encode, Metrics())
    with ThreadPoolExecutor(2) as callers:
        last = callers.submit(merging.encode, ["l" * 1400, "m" * 1400])
        until(lambda: encoder.runs)
        end = callers.submit(merging.close)
        encoder.go.release(9)
        end.result(300)
        assert last.result(300).tolist() == [[1400], [1400]]


def test_shares_change_no_bit_of_a_vector():
    encoder = load_encoder(config.DEFAULT_ENCODER)
    texts = [f"The {'long ' * n}tank of Merrow Hill is {n} metres." for n in range(60)]
    merging = MergingEncoder(encoder, encoder.encode, Metrics())
    shared = merging.encode(texts)
    merging.close()
    assert shared.tobytes() == encoder.encode(texts).tobytes()


def test_a_run_that_fails_fails_those_it_was_for_and_no_others():
    encoder = Broken()
    merging = MergingEncoder(encoder, encoder.encode, Metrics())
    for _ in range(2):
        with pytest.raises(ValueError, match="no such text"):
            merging.encode(["wrong" * 300, "right" * 300])
    assert merging.encode(["right", "right"]).tolist() == [[5], [5]]
    merging.close()


@pytest.mark.parametrize("name", ["recomp-mini", "recomp-extractive"])
def test_tenants_share_the_runs_of_an_encoder_and_nothing_that_a_method_remembers(name):
    settings = Settings(store="memory://", methods=(name,), encoder_process=False)
    encoders = Encoders(settings, Metrics())
    methods = Catalogue(settings, encoders)
    mine, theirs = methods.own(name), methods.own(name)
    assert mine.encoder is theirs.encoder is methods[name].encoder
    assert isinstance(mine.encoder, MergingEncoder)
    assert mine.fingerprint == make_compressor(name, {}).fingerprint
    mine._vector("How long is the tank?")
    assert (mine._vector.cache_info().currsize, theirs._vector.cache_info().currsize) == (1, 0)
    encoders.close()


def test_exit_mini_shares_the_encoder_of_recomp_mini_and_its_own_network():
    settings = Settings(store="memory://", encoder_process=False)
    encoders = Encoders(settings, Metrics())
    methods = Catalogue(settings, encoders)
    mine, theirs = methods.own("exit-mini"), methods.own("exit-mini")
    assert isinstance(mine.encoder, MergingEncoder)
    assert mine.encoder is theirs.encoder is methods["recomp-mini"].encoder
    assert mine.judge._reader is theirs.judge._reader
    assert mine.fingerprint == make_compressor("exit-mini", {}).fingerprint
    encoders.close()
