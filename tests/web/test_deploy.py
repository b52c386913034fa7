"""The image, the compose file and the dashboard against the service they are for.

No container engine is needed: what can be wrong without one running is looked for here.
"""

import json
import logging
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from ragpack.cli.app import app
from ragpack.client import Client
from ragpack.errors import RagpackError

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/ragpack.json").read_text("utf-8"))
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
METRIC = re.compile(r"\b((?:ragpack|process)_\w+)(?:\{([^}]*)\})?")


@pytest.fixture(scope="module")
def exported(service: str, until: Any) -> dict[str, set[str]]:
    """The labels of every metric that the service exports after some use."""
    with Client(service) as client:
        for _ in range(2):
            client.compress("How long is the tank?", ["The tank is 38 metres."])
        with pytest.raises(RagpackError):
            client.compress("How long?", ["The tank is 38 metres."], method="nope")
    # a failed request is counted when its answer has gone out, the encoders' process once it is up
    for name in ("ragpack_failures_total{", "ragpack_encoder_process"):
        until(lambda name=name: name in httpx.get(f"{service}/metrics").text)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(httpx.get(f"{service}/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_every_metric_on_the_dashboard_is_exported(query, exported):
    named = METRIC.findall(query)
    assert named or query.startswith("vector")
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query))))
    for name, selector in named:
        assert name in exported
        wanted = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)) | grouped
        assert wanted <= exported[name] | {"job", "instance"}


def test_the_dashboard_asks_the_provisioned_source():
    folder = ROOT / "deploy/grafana/provisioning"
    source = yaml.safe_load((folder / "datasources/prometheus.yml").read_text("utf-8"))
    provider = yaml.safe_load((folder / "dashboards/ragpack.yml").read_text("utf-8"))
    asked = {target["datasource"]["uid"] for p in DASHBOARD["panels"] for target in p["targets"]}
    assert asked == {source["datasources"][0]["uid"]}
    mounted = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert provider["providers"][0]["options"]["path"] in mounted
    assert source["datasources"][0]["url"] == "http://prometheus:9090"


def test_prometheus_scrapes_the_service_where_it_listens():
    settings = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))
    (target,) = settings["scrape_configs"][0]["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert host in SERVICES
    command = SERVICES[host]["command"]
    assert command[command.index("--port") + 1] == port


@pytest.mark.parametrize("name", SERVICES)
def test_each_container_is_watched_and_reached_from_this_machine_only(name):
    container = SERVICES[name]
    assert "healthcheck" in container or "build" in container  # the image brings its own
    assert all(port.startswith("127.0.0.1:") for port in container["ports"])
    assert "build" in container or re.search(r":v?\d+\.\d+", container["image"])
    for volume in container.get("volumes", []):
        outside = volume.split(":")[0]
        known = (
            (ROOT / outside).exists() if outside.startswith(".") else outside in COMPOSE["volumes"]
        )
        assert known, volume


def test_no_secret_is_written_down():
    for container in SERVICES.values():
        for name, value in container.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEYS|REDISCLI_AUTH", name):
                assert value.startswith("${")
    assert ".env" in (ROOT / ".gitignore").read_text("utf-8").split()


def test_the_image_is_built_from_what_the_project_says_it_is_made_of():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    made_of = set(settings["tool"]["setuptools"]["package-dir"].values())
    made_of |= {settings["project"]["readme"], *settings["project"]["license-files"]}
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    wanted = made_of | {"constraints.txt", "pyproject.toml"}
    assert {line[1:] for line in lines if line.startswith("!")} == wanted
    assert set(" ".join(copied).split()) == wanted


def test_the_image_runs_without_root_and_is_watched():
    last = DOCKERFILE.split("\nFROM ")[-1]
    user = re.search(r"^USER (\d+)", last, re.MULTILINE)
    assert user
    assert int(user[1]) > 0
    assert re.search(r"HEALTHCHECK(.|\n)*/healthz", last)


@pytest.mark.parametrize(
    "command",
    [
        ["ragpack", *json.loads(re.findall(r"^CMD (\[.*\])", DOCKERFILE, re.MULTILINE)[-1])],
        ["ragpack", *SERVICES["ragpack"]["command"]],
    ],
    ids=shlex.join,
)
def test_the_containers_command_is_one_of_ours(command, monkeypatch):
    # The command shows the library's warnings on stderr; later tests must not see that.
    monkeypatch.setattr(logging.getLogger("ragpack"), "handlers", [])
    known = CliRunner().invoke(app, [command[1], "--help"], env={"COLUMNS": "200"}).output
    for word in command[2:]:
        assert not word.startswith("--") or word in known
