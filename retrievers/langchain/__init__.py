"""ragpack inside LangChain, over ``langchain-core`` alone.

>>> from ragpack import ContextPacker
>>> from ragpack.retrievers.langchain import PackedRetriever
>>> packer = ContextPacker("recomp-extractive", budget=800)
>>> retriever = PackedRetriever(base=store.as_retriever(), packer=packer, k=10)  # doctest: +SKIP

The rest of a chain stays as it is; see ``docs/langchain.md``.
"""

from ragpack.retrievers.langchain.compressor import RagpackCompressor
from ragpack.retrievers.langchain.model_tokens import ModelTokens
from ragpack.retrievers.langchain.pack_context import PackContext
from ragpack.retrievers.langchain.packed_prompt import PackedPrompt
from ragpack.retrievers.langchain.packed_retriever import PackedRetriever
from ragpack.retrievers.langchain.search_retriever import SearchRetriever

__all__ = [
    "ModelTokens",
    "PackContext",
    "PackedPrompt",
    "PackedRetriever",
    "RagpackCompressor",
    "SearchRetriever",
]
