"""A tiny random Llama with a tokenizer trained here, and a real OpenAI-compatible server."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ragpack.handoff.hf import HFDecoder

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXT = ["Context:\nthe quick brown fox\n\nQuestion: who jumps over the lazy dog?\nAnswer:\n"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SPECIAL[0], eos_token=SPECIAL[2]
    )


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder; its window is 256 tokens."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tokenizer = _tokenizer()
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=2,
    )
    torch.manual_seed(1)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_llama: Path) -> HFDecoder:
    """The tiny model as a decoder."""
    return HFDecoder(str(tiny_llama), device="cpu")


@pytest.fixture
def with_template(tiny_llama: Path, tmp_path: Path) -> Callable[[str | None], HFDecoder]:
    """Makes the tiny decoder with another chat template, or with none."""

    def make(template: str | None) -> HFDecoder:
        folder = Path(shutil.copytree(tiny_llama, tmp_path / "other"))
        (folder / "chat_template.jinja").unlink()
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)
        return HFDecoder(str(folder), device="cpu")

    return make


@dataclass
class Reply:
    """What the server answers: a status, and the body in chunks as they are to be sent."""

    chunks: Iterable[bytes] = ()
    status: int = 200
    length: int | None = None


@dataclass
class Request:
    """What the server was asked."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


def event(content: str | None = None, **fields: Any) -> bytes:
    """One streamed event; JSON as most servers write it, without escapes."""
    choice = {"index": 0, "delta": {} if content is None else {"content": content}}
    shape = {"choices": [choice | fields.pop("choice", {})]} | fields
    return f"data: {json.dumps(shape, ensure_ascii=False)}\n\n".encode()


LAST = event(choice={"finish_reason": "stop"})
USAGE = event(choices=[], usage={"prompt_tokens": 40, "completion_tokens": 2})
DONE = b"data: [DONE]\n\n"


class ChatServer:
    """A server on a free port that sends the replies it was given, by path."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.requests: list[Request] = []
        self.hung_up = False
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.answer(self)

            do_GET = do_POST

            def log_message(self, *arguments: object) -> None:
                """Nothing: the test's output is the test's."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._http.server_address[1]}"
        self._thread = Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def chat(self, chunks: Iterable[bytes], **fields: Any) -> None:
        """What to answer to a chat request."""
        self.replies["/v1/chat/completions"] = Reply(chunks, **fields)

    def models(self, listed: bytes) -> None:
        """What to answer to the question which models are served."""
        self.replies["/v1/models"] = Reply([listed])

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request, and note when the client hangs up."""
        size = int(handler.headers.get("Content-Length", 0))
        body = json.loads(handler.rfile.read(size) or b"{}")
        self.requests.append(Request(handler.path, dict(handler.headers), body))
        reply = self.replies.get(handler.path, Reply([b"no such path"], 404))
        handler.send_response(reply.status)
        if reply.length is not None:
            handler.send_header("Content-Length", str(reply.length))
        handler.end_headers()
        try:
            for chunk in reply.chunks:
                handler.wfile.write(chunk)
        except OSError:
            self.hung_up = True

    def close(self) -> None:
        """Stop, after the requests under way."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    """A server that answers "Ada Lovelace." until told otherwise."""
    server = ChatServer()
    server.chat([event("Ada "), event("Lovelace."), LAST, USAGE, DONE])
    yield server
    server.close()


@pytest.fixture(scope="session")
def sse() -> Callable[..., bytes]:
    """Writes a streamed event."""
    return event
