"""Passages are put into an index, found, replaced and deleted over HTTP."""

from urllib.parse import quote

import pytest


@pytest.fixture
def done(until):
    """Waits for the end of a job, and says how it ended."""

    def wait(client, answer):
        assert answer.status_code == 202, answer.text
        job = answer.headers["location"]
        until(lambda: client.get(job).json()["status"] not in ("queued", "running"))
        return client.get(job).json()

    return wait


def _ids(client, query, k=3):
    asked = {"query": query, "index": "book", "k": k, "method": "identity"}
    return [row["id"] for row in client.post("/v1/pack", json=asked).json()["passages"]]


@pytest.fixture
def client(serve, passages, done):
    client = serve().client
    job = done(client, client.post("/v1/index", json={"index": "book", "passages": passages}))
    assert job["status"] == "done"
    assert job["result"]["added"] == 2
    assert job["result"]["computed"]["recomp-mini"] == 2
    return client


def test_what_is_indexed_is_found_and_computed_already(client):
    assert _ids(client, "How long is the tank?") == ["b", "a"]
    asked = {"query": "How long is the tank?", "index": "book", "k": 1}
    answer = client.post("/v1/pack", json=asked).json()
    assert answer["passages"][0]["cache"] == "hit"
    assert "38 metres" in answer["context"]


def test_the_same_id_replaces(client, done):
    new = [{"id": "b", "text": "Bees make honey. A hive has one queen."}]
    job = done(client, client.post("/v1/index", json={"index": "book", "passages": new}))
    assert job["result"]["added"] == 1
    asked = {"query": "honey", "index": "book", "k": 2, "method": "identity"}
    context = client.post("/v1/pack", json=asked).json()["context"]
    assert "Bees make honey" in context
    assert "tank" not in context


def test_a_deleted_passage_is_gone_from_index_and_store(client, passages):
    gone = client.delete("/v1/passages/b", params={"index": "book"})
    assert gone.status_code == 200
    assert gone.json() == {"id": "b", "object": "passage", "deleted": True, "artifacts": 2}
    assert _ids(client, "How long is the tank?") == ["a"]
    asked = {"query": "tank", "passages": [passages[1]]}
    assert client.post("/v1/compress", json=asked).json()["results"][0]["cache"] == "miss"
    assert client.delete("/v1/passages/b", params={"index": "book"}).status_code == 404


def test_an_id_may_hold_any_character(client, done):
    ident = "https://example.org/a b?c=1#d/../é"
    body = {"index": "book", "passages": [{"id": ident, "text": "Goats climb."}]}
    assert done(client, client.post("/v1/index", json=body))["status"] == "done"
    gone = client.delete(f"/v1/passages/{quote(ident, safe='')}", params={"index": "book"})
    assert gone.json()["id"] == ident


@pytest.mark.parametrize("method", ["identity", "exit-mini", "exit", "nope"])
def test_only_what_needs_no_query_is_computed_beforehand(client, passages, method):
    body = {"index": "book", "passages": passages, "methods": [method]}
    assert client.post("/v1/index", json=body).status_code == 422


def test_without_a_folder_there_are_no_indexes(serve, passages):
    client = serve(indexes=None).client
    body = {"index": "book", "passages": passages}
    assert client.post("/v1/index", json=body).status_code == 404
    asked = {"query": "x", "index": "book"}
    assert client.post("/v1/pack", json=asked).status_code == 404


def test_an_index_of_another_encoder_is_a_conflict_without_our_paths(
    serve, tmp_path, passages, done
):
    client = serve().client
    done(client, client.post("/v1/index", json={"index": "book", "passages": passages}))
    manifest = next((tmp_path / "indexes").rglob("manifest.json"))
    manifest.write_text(manifest.read_text().replace('"fingerprint": "', '"fingerprint": "00'))
    refused = client.post("/v1/pack", json={"query": "x", "index": "book"})
    assert refused.status_code == 409
    assert str(tmp_path) not in refused.text
