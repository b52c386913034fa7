"""Every error that ragpack raises, in one tree.

RagpackError
├── ConfigError (ValueError)            a setting is wrong or unknown
├── MissingExtraError (ImportError)     an optional dependency is not installed
├── UnknownPluginError (LookupError)    no method, store or retriever of that name
├── InputError (ValueError)             a passage, query or corpus record cannot be used
├── RetrievalError                      an index cannot be built, read or searched
├── CompressionError                    a method failed on a passage
│   ├── CompressionTimeout (TimeoutError)
│   └── BudgetError                     the budget cannot hold anything
├── CacheError                          the store or one of its entries
│   ├── CacheUnavailable (ConnectionError)
│   ├── CorruptEntry                    bytes that fail a check
│   └── IncompatibleEntry               sound bytes of another version, key, shape or dtype
├── UnsupportedModel                    a model whose results cannot be proven right
├── HandoffError                        the decoder could not take the context
└── ServiceError                        a ragpack service refused or failed
    ├── ServiceDenied (PermissionError)     no key, or not this one
    └── ServiceUnavailable (ConnectionError)  busy, or no answer

Library code raises these. ``ContextPacker`` turns compression and cache errors into the original
text, counts them and warns once; with ``strict=True`` it raises them.
"""

__all__ = [
    "BudgetError",
    "CacheError",
    "CacheUnavailable",
    "CompressionError",
    "CompressionTimeout",
    "ConfigError",
    "CorruptEntry",
    "HandoffError",
    "IncompatibleEntry",
    "InputError",
    "MissingExtraError",
    "RagpackError",
    "RetrievalError",
    "ServiceDenied",
    "ServiceError",
    "ServiceUnavailable",
    "UnknownPluginError",
    "UnsupportedModel",
]


class RagpackError(Exception):
    """Base of every error of ragpack."""


class ConfigError(RagpackError, ValueError):
    """A setting is wrong, unknown or contradicts another one."""


class MissingExtraError(RagpackError, ImportError):
    """An optional dependency is not installed; the message holds the pip command."""


class UnknownPluginError(RagpackError, LookupError):
    """No plug-in of that name; the message names the nearest ones."""


class InputError(RagpackError, ValueError):
    """A passage, a query or a corpus record cannot be used as it is."""


class RetrievalError(RagpackError):
    """An index cannot be built, read or searched."""


class CompressionError(RagpackError):
    """A method failed on a passage."""


class CompressionTimeout(CompressionError, TimeoutError):
    """A method did not finish before the deadline."""


class BudgetError(CompressionError):
    """The token budget is too small to hold what must be kept."""


class CacheError(RagpackError):
    """The store, or an entry of it, cannot be used."""


class CacheUnavailable(CacheError, ConnectionError):
    """The store does not answer, is full or cannot be written."""


class CorruptEntry(CacheError):
    """Stored bytes fail a check; ``reason`` is a short word for counters."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class IncompatibleEntry(CorruptEntry):
    """Stored bytes are sound but belong to another version, key, shape or dtype."""


class UnsupportedModel(RagpackError):
    """The model has a part whose results ragpack cannot prove right."""


class HandoffError(RagpackError):
    """The decoder or its server could not take the packed context."""


class ServiceError(RagpackError):
    """A ragpack service refused a request or failed on it.

    ``status`` is that of HTTP, 0 where no answer came; ``code`` the service's word for programs;
    ``request_id`` what its log calls the request.
    """

    def __init__(
        self, detail: str, *, status: int = 0, code: str = "", request_id: str = ""
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.request_id = request_id


class ServiceDenied(ServiceError, PermissionError):
    """The service wants a key, or another one."""


class ServiceUnavailable(ServiceError, ConnectionError):
    """The service is busy or does not answer; ``retry_after`` in seconds where it names a time."""

    def __init__(
        self,
        detail: str,
        *,
        status: int = 0,
        code: str = "",
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail, status=status, code=code, request_id=request_id)
        self.retry_after = retry_after
