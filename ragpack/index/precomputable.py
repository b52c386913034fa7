"""Which methods can be computed before any query is known."""

from ragpack.errors import ConfigError
from ragpack.protocols import Compressor

__all__ = ["require_precomputable"]


def require_precomputable(compressor: Compressor) -> Compressor:
    """The same compressor, if anything of it can be computed without a query, and is stored.

    Raises:
        ConfigError: it reads the query, or stores nothing.
    """
    if compressor.query_aware or not compressor.cached:
        why = "reads the query" if compressor.query_aware else "stores nothing"
        raise ConfigError(f"{compressor.name} {why}: nothing of it can be computed beforehand")
    return compressor
