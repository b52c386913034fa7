"""POST /v1/embeds: soft tokens as a vLLM server takes them, from a tiny refrag made in the test."""

import base64
import io
from pathlib import Path

import pytest
import torch

QUERY = "How long is the tank?"


@pytest.fixture(scope="module")
def client(start, tiny_settings):
    settings = tiny_settings("refrag")
    decoder = next(
        folder
        for folder in Path(settings["checkpoint"]).parent.iterdir()
        if folder.name != "refrag"
    )
    return start(
        methods=("identity", "refrag"),
        method_settings={"refrag": settings},
        tokenizer=str(decoder),
    ).client


@pytest.mark.parametrize(
    ("format", "name"), [("completion", "prompt_embeds"), ("content_part", "data")]
)
def test_the_payload_is_what_vllm_reads(client, passages, format, name):
    asked = {"query": QUERY, "passages": passages, "format": format, "share": 0.0}
    answer = client.post("/v1/embeds", json=asked)
    assert answer.status_code == 200, answer.text
    rows = torch.load(
        io.BytesIO(base64.b64decode(answer.json()["payload"][name], validate=True)),
        weights_only=True,
    )
    assert rows.dim() == 2
    assert rows.is_floating_point()
    tokens_in = answer.json()["report"]["tokens_in"]
    spelled = client.post("/v1/embeds", json=asked | {"share": 1.0}).json()
    more = torch.load(io.BytesIO(base64.b64decode(spelled["payload"][name])), weights_only=True)
    assert len(rows) < len(more)
    assert len(more) >= tokens_in


def test_a_text_method_has_no_soft_tokens(client, passages):
    asked = {"query": QUERY, "passages": passages, "method": "identity"}
    refused = client.post("/v1/embeds", json=asked)
    assert refused.status_code == 422
    assert "identity hands on text" in refused.json()["detail"]


def test_without_a_method_for_it_the_answer_says_so(service, passages):
    refused = service.client.post("/v1/embeds", json={"query": QUERY, "passages": passages})
    assert refused.status_code == 422
    assert refused.json()["code"] == "UnknownPluginError"
