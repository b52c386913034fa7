"""Prompt embeddings for vLLM: decoded here by the server's own rules, and posted to a server."""

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from threading import Thread

import pytest
import torch

from ragpack.cache_store.memory import MemoryStore
from ragpack.errors import HandoffError, UnsupportedModel
from ragpack.handoff.decoding import greedy
from ragpack.handoff.hf import HFDecoder
from ragpack.handoff.vllm import VLLMPrompts, VLLMSoftDecoder, encode_embeds
from ragpack.pipeline import ContextPacker
from ragpack.types import Passage

QUERY = "Who designed the bridge?"
PASSAGES = [
    Passage("a", "The bridge over the Tarn was designed by Vera Holm.", "Tarn Bridge"),
    Passage("b", "A dam was built nearby in 1931."),
]


def decode(payload: str, width: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What vLLM 0.33 does with ``prompt_embeds`` (renderers/embed_utils.py, safe_load)."""
    data = base64.b64decode(payload, validate=True)
    tensor = torch.load(BytesIO(data), weights_only=True, map_location=torch.device("cpu"))
    if tensor.dim() > 2:
        tensor = tensor.squeeze(0)
    assert tensor.dim() == 2
    assert tensor.shape[1] == width
    assert tensor.is_floating_point()
    return tensor.to(dtype)


@pytest.fixture(scope="module")
def prompts(decoder_folder) -> VLLMPrompts:
    return VLLMPrompts(decoder_folder, dtype=torch.float32)


@pytest.fixture
def packed(refrag):
    packer = ContextPacker(
        refrag(sense="random", share=0.4, k=4),
        store=MemoryStore(),
        tokenizer="smollm2-135m-instruct",
        strict=True,
    )
    return packer.pack(QUERY, PASSAGES)


@pytest.fixture(scope="module")
def decoder(decoder_folder) -> HFDecoder:
    return HFDecoder(decoder_folder, device="cpu")


def test_the_server_reads_the_rows_that_a_decoder_here_reads(prompts, packed, decoder):
    rows = decode(prompts.completion(packed, QUERY)["prompt_embeds"], 32)
    assert torch.equal(rows, decoder.inputs(packed, QUERY).embeds[0])


def test_a_context_of_text_goes_as_its_tokens(prompts, decoder):
    rows = decode(prompts.completion("the bridge", QUERY)["prompt_embeds"], 32)
    ids = decoder.inputs("the bridge", QUERY).input_ids
    assert torch.equal(rows, decoder.model.get_input_embeddings()(ids)[0])


def test_the_wire_carries_half_precision_and_no_more_than_the_rows(decoder_folder, packed):
    body = VLLMPrompts(decoder_folder).completion(packed, QUERY)
    data = base64.b64decode(body["prompt_embeds"])
    rows = torch.load(BytesIO(data), weights_only=True)
    assert rows.dtype == torch.bfloat16
    view = torch.randn(100_000, 32)[:1]
    assert len(encode_embeds(view)) < 4000


def test_a_chat_part_is_the_context_between_the_templates_parts(prompts, packed, decoder):
    part = prompts.content_part(packed)
    assert part["type"] == "prompt_embeds"
    rows = decode(part["data"], 32)
    assert len(rows) == packed.report.tokens_out
    before = len(decoder.prompts.prompt("x", QUERY).prefix)
    whole = decoder.inputs(packed, QUERY).embeds[0]
    assert torch.equal(rows, whole[before : before + len(rows)])


def test_the_mixed_form_names_what_is_a_token(prompts, packed, decoder):
    mixed = prompts.offline(packed, QUERY)
    ids, real, rows = (
        mixed[name] for name in ("prompt_token_ids", "prompt_is_token_ids", "prompt_embeds")
    )
    assert len(ids) == len(real) == len(rows)
    assert 0 < real.count(False) < packed.report.tokens_out
    table = decoder.model.get_input_embeddings()
    mask = torch.tensor(real)
    assert torch.equal(rows[mask], table(torch.tensor(ids))[mask])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.zeros(1, 2, 32), r"not torch.float32 \[1, 2, 32\]"),
        (torch.zeros(2, 32, dtype=torch.int8), "not torch.int8"),
        (torch.full((2, 32), float("nan")), "not finite"),
    ],
)
def test_rows_that_a_server_would_refuse_are_not_sent(rows, message):
    with pytest.raises(HandoffError, match=message):
        encode_embeds(rows)


def test_models_that_scale_their_embeddings_are_refused(make_decoder):
    with pytest.raises(UnsupportedModel, match="scales its embeddings"):
        VLLMPrompts(make_decoder("Gemma2Config"))


@pytest.fixture
def server(decoder) -> Iterator[str]:
    """A real HTTP server that answers completions as vLLM would, with the tiny model."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send(json.dumps({"data": [{"id": "tiny"}]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert (self.path, body["model"], body["prompt"]) == ("/v1/completions", "tiny", "")
            rows = decode(body["prompt_embeds"], 32)
            start = decoder._start([0] * len(rows))
            object.__setattr__(start, "embeds", rows[None])
            text = decoder.prompts.decoder()
            lines = []
            for token in greedy(decoder.model, start, body["max_tokens"], decoder._stop):
                lines.append({"choices": [{"text": text.add(token), "finish_reason": None}]})
            lines.append({"choices": [{"text": "", "finish_reason": "stop"}]})
            counts = {"prompt_tokens": len(rows), "completion_tokens": len(lines) - 1}
            lines.append({"choices": [], "usage": counts})
            self.send(b"".join(b"data: %s\n\n" % json.dumps(line).encode() for line in lines))

        def send(self, body: bytes) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Nothing: the test's output is the test's."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}/v1"
    http.shutdown()
    thread.join()
    http.server_close()


def test_a_server_gives_the_answer_that_the_model_gives_here(server, prompts, packed, decoder):
    remote = VLLMSoftDecoder(server, prompts)
    answer = remote.generate(packed, QUERY, max_new_tokens=8)
    here = decoder.generate(packed, QUERY, max_new_tokens=8)
    assert answer.text == here.text
    assert answer.usage == here.usage
    with pytest.raises(HandoffError, match="cannot score"):
        remote.score(packed, QUERY, "x")
    remote.close()
