"""Requests share the runs of the encoder."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ragpack.pipeline import make_compressor
from ragpack.service import Settings
from ragpack.service.batching import MergingEncoder
from ragpack.service.catalogue import Catalogue
from ragpack.service.encoders import Encoders
from ragpack.service.metrics import Metrics
from ragpack.types import Fingerprint


class Held:
    """Lengths of texts as their vectors; each run waits until it is let go."""

    dim = 1
    fingerprint = Fingerprint("held")

    def __init__(self):
        self.runs = []
        self.go = threading.Event()

    def encode(self, texts):
        self.runs.append(list(texts))
        assert self.go.wait(300)
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
        encoder.go.set()
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
        encoder.go.set()
        elsewhere.go.set()
        assert (lone.result().tolist(), second.result().tolist()) == ([[3]], [[7]])
    assert merging.encode(["a", "b"]).tolist() == [[1], [1]]
    assert merging.encode(["alone"]).tolist() == [[5]]
    merging.close()
    assert encoder.runs == [["one"], ["alone"]]
    assert elsewhere.runs == [["another"], ["a", "b"]]


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
