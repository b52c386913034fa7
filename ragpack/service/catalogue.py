"""The methods of a service: which there are, which can run here, and why the others cannot."""

import inspect
import logging
import re
import threading
from dataclasses import dataclass
from typing import Any

from ragpack import registry
from ragpack.errors import RagpackError, UnknownPluginError, UnsupportedModel
from ragpack.pipeline import make_compressor
from ragpack.protocols import Compressor
from ragpack.service.choice import in_force
from ragpack.service.encoders import Encoders
from ragpack.service.settings import Settings

__all__ = ["Catalogue", "Method"]

_log = logging.getLogger(__name__)
_KV = (
    "keys and values are made for a decoder in the same process and do not travel over HTTP; "
    "take a text method, or ContextPacker beside the decoder"
)
_PATH = re.compile(r"(?<![\w.])/[^\s:'\"]+")
"""A path of this machine in a message, which is not for clients."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method that the service offers; ``reason`` says why it cannot run here, "" if it can."""

    name: str
    factory: type[Compressor]
    compressor: Compressor | None
    reason: str = ""

    def describe(self) -> dict[str, Any]:
        """Its row of ``GET /v1/methods``."""
        return {
            "name": self.name,
            "kind": self.factory.kind,
            "query_aware": self.factory.query_aware,
            "cached": self.factory.cached,
            "scope": self.factory.scope,
            "summary": (inspect.getdoc(self.factory) or "").partition("\n")[0],
            "settings": in_force(self.compressor) if self.compressor else {},
            "available": self.compressor is not None,
            "reason": self.reason,
        }


class Catalogue:
    """Finds out once, on first use, which methods can run; safe in several threads.

    A method that takes an encoder by name gets the service's, unless its settings name another one.
    Runs of one encoder are shared, whichever methods ask for them.

    Raises:
        UnknownPluginError: a name that is not registered.
    """

    def __init__(self, settings: Settings, encoders: Encoders) -> None:
        self._settings = settings
        self._encoders = encoders
        self.names = tuple(settings.methods or registry.names("compressors"))
        self._factories = {name: registry.load("compressors", name) for name in self.names}
        self._methods: dict[str, Method] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Compressor:
        """The method called ``name``.

        Raises:
            UnknownPluginError: the service does not offer it; the message lists those it does.
            UnsupportedModel: it cannot run on this machine.
        """
        if name not in self._factories:
            known = ", ".join(self.names)
            raise UnknownPluginError(f"no method named {name!r}; this service has: {known}")
        method = self._method(name)
        if method.compressor is None:
            raise UnsupportedModel(f"{name} cannot run on this server: {method.reason}")
        return method.compressor

    def own(self, name: str) -> Compressor:
        """The method for one tenant alone where that costs no further model.

        A method may remember queries; what one tenant asked must answer no other one sooner.

        Raises:
            UnknownPluginError, UnsupportedModel: as for ``self[name]``.
        """
        method = self[name]
        return self._made(name) if self._encoder_of(name) else method

    def all(self) -> list[Method]:
        """Every method, by name."""
        return [self._method(name) for name in self.names]

    def _method(self, name: str) -> Method:
        with self._lock:
            if name not in self._methods:
                self._methods[name] = self._tried(name, self._factories[name])
            return self._methods[name]

    def _tried(self, name: str, factory: type[Compressor]) -> Method:
        """The method, with its models found (not yet loaded), or why it cannot run."""
        if factory.kind == "kv":
            return Method(name, factory, None, _KV)
        try:
            compressor = self._made(name)
            _ = compressor.fingerprint
        except RagpackError as error:
            reason = str(error).partition("\n")[0]
            asked_for = logging.WARNING if self._settings.methods else logging.INFO
            _log.log(asked_for, "method %s is not available: %s", name, reason)
            return Method(name, factory, None, _PATH.sub("…", reason))
        except Exception:  # one broken method must not keep the others from being offered
            _log.exception("method %s is not available", name)
            return Method(name, factory, None, "it failed; the service's log says why")
        return Method(name, factory, compressor)

    def _encoder_of(self, name: str) -> inspect.Parameter | None:
        """The method's setting for its encoder, if it has one."""
        return inspect.signature(self._factories[name]).parameters.get("encoder")

    def _made(self, name: str) -> Compressor:
        """The method with the operator's settings, its encoder shared with other methods."""
        settings = dict(self._settings.method_settings.get(name, {}))
        if (encoder := self._encoder_of(name)) is None:
            return make_compressor(name, settings)
        if isinstance(encoder.default, str):
            settings = {"encoder": self._settings.encoder} | settings
        method = make_compressor(name, settings)
        if (own := getattr(method, "encoder", None)) is None:
            return method
        return make_compressor(name, settings | {"encoder": self._encoders.shared(own)})
