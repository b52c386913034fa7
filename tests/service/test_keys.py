"""Who may call: bearer keys, their rates, quotas and ends; and the wall between tenants."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from limits import parse

from ragpack.errors import ConfigError
from ragpack.service.keys import keys_from_file, keys_from_text

ASKED = {"query": "How long?", "passages": ["The tank is long."], "method": "identity"}


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
def keyed(start, make_key):
    """A client of a server with a key that is good and one that has expired."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    keys = (make_key("team", "secret"), make_key("gone", "old", expires=past))
    return start(keys=keys, methods=("identity",)).client


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "Unauthorized"),
        ("Bearer", "Unauthorized"),
        ("Bearer wrong", "Unauthorized"),
        ("Basic c2VjcmV0", "Unauthorized"),
        ("secret", "Unauthorized"),
        ("Bearer sécret", "Unauthorized"),
        ("Bearer old", "ExpiredKey"),
    ],
)
def test_without_a_good_key_nothing_is_served(keyed, header, code):
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    refused = keyed.post("/v1/compress", json=ASKED, headers=headers)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == code
    assert keyed.get("/v1/methods").status_code == 401
    assert keyed.get("/healthz").status_code == 200
    assert keyed.post("/v1/compress", json=ASKED, headers=bearer("secret")).status_code == 200


def test_a_rate_and_a_quota_have_an_end(serve, make_key):
    keys = (
        make_key("quick", "one", rate=parse("2/hour")),
        make_key("small", "two", quota=parse("3/day")),
    )
    client = serve(keys=keys).client
    statuses = [
        client.post("/v1/compress", json=ASKED, headers=bearer("one")).status_code for _ in "abc"
    ]
    assert statuses == [200, 200, 429]
    three = ASKED | {"passages": ["a", "b", "c"]}
    assert client.post("/v1/compress", json=three, headers=bearer("two")).status_code == 200
    refused = client.post("/v1/compress", json=ASKED, headers=bearer("two"))
    assert refused.status_code == 429
    assert refused.json()["code"] == "QuotaExceeded"
    assert int(refused.headers["retry-after"]) > 0


def test_tenants_share_nothing(serve, make_key, until):
    client = serve(keys=(make_key("a", "one"), make_key("b", "two"))).client
    asked = ASKED | {"method": "recomp-extractive"}

    def result(secret):
        answer = client.post("/v1/compress", json=asked, headers=bearer(secret)).json()
        return answer["results"][0]["cache"]

    assert result("one") == "miss"
    until(lambda: result("one") == "hit")  # written behind the answer
    assert result("two") == "miss"


def test_indexes_and_jobs_of_another_tenant_do_not_exist(serve, make_key, until):
    client = serve(keys=(make_key("a", "one"), make_key("b", "two"))).client
    body = {"index": "mine", "passages": [{"id": "x", "text": "The tank is long."}]}
    job = client.post("/v1/index", json=body, headers=bearer("one"))
    assert job.status_code == 202
    path = job.headers["location"]
    assert client.get(path, headers=bearer("two")).status_code == 404
    until(lambda: client.get(path, headers=bearer("one")).json()["status"] == "done")
    asked = {"query": "tank", "index": "mine", "k": 1}
    assert client.post("/v1/pack", json=asked, headers=bearer("one")).status_code == 200
    assert client.post("/v1/pack", json=asked, headers=bearer("two")).status_code == 404
    gone = client.delete("/v1/passages/x?index=mine", headers=bearer("two"))
    assert gone.status_code == 404


def test_a_file_of_keys(tmp_path):
    digest = sha256(b"secret").hexdigest()
    path = tmp_path / "keys.toml"
    path.write_text(
        f'[web]\nsha256 = "{digest}"\nnamespace = "team"\nrate = "5/second"\n'
        f'quota = "100/day"\nexpires = 2020-01-01\n[app]\nsha256 = "{digest}"\n'
    )
    web, app = keys_from_file(path)
    assert web.namespace == "team"
    assert (str(web.rate), str(web.quota)) == ("5 per 1 second", "100 per 1 day")
    assert web.expired
    assert (app.namespace, app.rate, app.expired) == ("app", None, False)
    assert keys_from_text(f"app:{digest}, ") == [app]


@pytest.mark.parametrize(
    "text",
    [
        "[k]",
        '[k]\nsha256 = "abc"',
        '[k]\nsha256 = "{0}"\nnamespace = "../other"',
        '["K!"]\nsha256 = "{0}"',
        '[k]\nsha256 = "{0}"\nrate = "often"',
        '[k]\nsha256 = "{0}"\nexpires = "soon"',
        '[k]\nkey = "written down"',
        "k = 3",
        "not toml",
    ],
)
def test_a_wrong_file_of_keys_is_refused(tmp_path, text):
    path = tmp_path / "keys.toml"
    path.write_text(text.format("0" * 64))
    with pytest.raises(ConfigError):
        keys_from_file(path)
