"""ragpack as a node postprocessor, for query engines that take one."""

from typing import Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from pydantic import ConfigDict, InstanceOf

from ragpack import config
from ragpack.errors import InputError
from ragpack.protocols import Packer
from ragpack.retrievers.llama_index.packing import Packing
from ragpack.retrievers.refill import at_least_one

__all__ = ["PackedPostprocessor"]


class PackedPostprocessor(BaseNodePostprocessor):
    """Cuts the nodes of a query engine to what the question needs.

    Order, ids, scores and metadata stay, nodes of which nothing is kept are left out, and
    ``metadata["ragpack"]`` says what was kept at what cost; no prompt and no embedding sees that
    field. Asynchronous calls work in a worker thread. ``RAGPACK_BYPASS=1`` turns it off.

    Args:
        packer: a :class:`ragpack.ContextPacker`; its deadline and fallbacks hold here too.
        budget: most tokens of all nodes together; the packer's own where None.
        title_key: the metadata field that holds a node's title.

    Raises:
        ConfigError: ``budget`` below 1.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    packer: InstanceOf[Packer]
    budget: int | None = None
    title_key: str | None = None

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        at_least_one("budget", self.budget)  # a pydantic validator would hide the ConfigError

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex knows the class."""
        return "PackedPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if config.bypass():
            return nodes
        if query_bundle is None:
            raise InputError("PackedPostprocessor needs the question: pass query_str")
        return Packing(self.packer, self.budget, self.title_key)(query_bundle.query_str, nodes)
