"""The service: compression over HTTP, for many callers who share nothing but the machine."""

from ragpack.registry import missing_extra

try:
    from ragpack.service.app import create_app
    from ragpack.service.settings import Limits, Settings
except ModuleNotFoundError as error:
    if (error.name or "").startswith("ragpack"):
        raise
    raise missing_extra(error, "the service") from error

__all__ = ["Limits", "Settings", "create_app"]
