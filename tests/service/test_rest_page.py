"""docs/rest.md: every curl line of it works, and its example answer is what the service says."""

import json
import re
import shlex
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rest.md"
SERVICE = PAGE.parents[1] / "ragpack" / "service"
LINES = [
    line.strip() for line in PAGE.read_text("utf-8").splitlines() if line.startswith("    curl ")
]


def _sent(client, line):
    method, body, words = None, None, iter(shlex.split(line)[1:])
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "--json":
            body = next(words)
        else:
            path = word.removeprefix("localhost:8000")
    headers = {"Content-Type": "application/json"} if body else {}
    return client.request(method or "POST", path, content=body, headers=headers)


def test_every_line_of_the_page(start, until):
    client = start(methods=("recomp-mini", "recomp-extractive")).client
    assert len(LINES) >= 7
    for line in LINES:
        answer = _sent(client, line)
        if "/v1/embeds" in line:  # the page says what happens where there is no method for it
            assert answer.status_code == 422
            continue
        assert answer.is_success, (line, answer.text)
        if answer.status_code == 202:
            job = answer.headers["location"]
            until(lambda job=job: client.get(job).json()["status"] in ("done", "failed"))
            assert client.get(job).json()["status"] == "done"


def test_the_example_answer_is_the_services(start):
    (example,) = re.findall(r"```json\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    shown, given = (
        json.loads(example),
        _sent(start(methods=("recomp-mini",)).client, LINES[0]).json(),
    )
    for answer in (shown, given):  # these are never the same twice
        answer["id"] = answer["id"][:4]
        answer["report"]["ms"] = list(answer["report"]["ms"])
    assert shown == given


def test_every_refusal_of_the_service_is_on_the_page():
    source = "".join(path.read_text("utf-8") for path in SERVICE.rglob("*.py"))
    codes = set(re.findall(r'(?:Problem|_refused|_unauthorized)\((?:\d+, )?"(\w+)"', source))
    assert {"Unauthorized", "Overloaded", "BodyTooSlow"} <= codes
    assert {code for code in codes if f"`{code}`" not in PAGE.read_text("utf-8")} == {
        "InternalError"  # a fault, and not a refusal
    }
