"""ragpack: packs retrieved passages into the least a decoder needs, computed once and stored.

>>> from ragpack import ContextPacker, Passage
>>> packer = ContextPacker("identity", store="memory://")
>>> packer.pack("Who?", [Passage(id="p1", text="Ada.")]).text
'Ada.'

Names load on first use: importing ragpack imports neither torch nor langchain.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ragpack.errors import RagpackError
from ragpack.types import Passage

if TYPE_CHECKING:
    from ragpack.handoff import open_decoder
    from ragpack.pipeline import ContextPacker
    from ragpack.report import PackedContext, PackReport

__all__ = [
    "ContextPacker",
    "PackReport",
    "PackedContext",
    "Passage",
    "RagpackError",
    "__version__",
    "open_decoder",
]
__version__ = "0.1.0"

_LAZY = {
    "ContextPacker": "ragpack.pipeline",
    "PackReport": "ragpack.report",
    "PackedContext": "ragpack.report",
    "open_decoder": "ragpack.handoff",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'ragpack' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
