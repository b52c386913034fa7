"""Hand-off: a packed context and a question into a decoder."""

from typing import TYPE_CHECKING, Any

from ragpack.config import DEFAULT_DECODER
from ragpack.errors import ConfigError

if TYPE_CHECKING:
    from ragpack.protocols import Decoder

__all__ = ["open_decoder"]


def open_decoder(spec: str = DEFAULT_DECODER, **settings: Any) -> "Decoder":
    """A decoder by name or URL.

    | spec | decoder |
    |---|---|
    | model name, folder, GGUF file or hub id | that model in this process |
    | ``openai://host:port/v1?model=NAME`` | an OpenAI-compatible server over HTTP |
    | ``openai+https://host/v1?model=NAME`` | the same over HTTPS |
    | ``vllm://host:port`` | a vLLM server and the model that it serves |

    Args:
        spec: see above.
        settings: ``instruction`` for every decoder; ``device`` and ``dtype`` for a model in this
            process; ``api_key`` and ``timeout`` (seconds) for a server.

    Raises:
        ConfigError: no such model, or a URL that is none of these.
        MissingExtraError: a package that the model needs is not installed.
    """
    scheme, separator, _ = spec.partition("://")
    if not separator:
        from ragpack.handoff.hf import HFDecoder

        return HFDecoder(spec, **settings)
    from ragpack.handoff.openai import SCHEMES, OpenAIDecoder

    if scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise ConfigError(f"no decoder for {spec!r}: expected a model's name or path, or {known}")
    return OpenAIDecoder.from_url(spec, **settings)
