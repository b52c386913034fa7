"""The OpenAPI document says what the service does: schemathesis finds no contradiction."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ragpack.service.schemas import CompressRequest, IndexRequest, PackRequest, RerankRequest


@pytest.fixture(scope="module")
def keyed(tmp_path_factory, make_key, start):
    return start(keys=(make_key("team", "secret"),), indexes=tmp_path_factory.mktemp("indexes"))


def test_some_hundred_generated_requests_meet_no_fault(keyed, tmp_path):
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert program is not None
    command = [program, "run", f"{keyed.url}/openapi.json", "--max-examples", "12"]
    command += ["--phases", "examples,fuzzing,stateful", "--seed", "7", "--request-timeout", "60"]
    command += ["--header", "Authorization: Bearer secret"]
    # Every request that the schema allows need not be accepted: methods are looked up by name.
    command += ["--exclude-checks", "positive_data_acceptance"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-6000:]
    cases = re.search(r"(\d+) generated", done.stdout)
    assert cases
    assert int(cases[1]) > 100


def test_every_operation_is_described(keyed):
    document = keyed.client.get("/openapi.json").json()
    operations = [row for path in document["paths"].values() for row in path.values()]
    assert len(operations) >= 11
    assert all(row["summary"] and row["description"] for row in operations)
    guarded = [
        row for path, rows in document["paths"].items() for row in rows.values() if "/v1/" in path
    ]
    assert all(row["security"] == [{"HTTPBearer": []}] for row in guarded)
    assert all({"401", "413", "422", "429"} <= row["responses"].keys() for row in guarded)


def test_the_examples_are_valid():
    for model in (CompressRequest, PackRequest, RerankRequest, IndexRequest):
        for example in model.model_json_schema()["examples"]:
            model.model_validate(example)
