"""ragpack inside LlamaIndex (extra ``llamaindex``): the same contract as in LangChain."""

from ragpack.retrievers.llama_index.packed_postprocessor import PackedPostprocessor
from ragpack.retrievers.llama_index.packed_retriever import PackedRetriever
from ragpack.retrievers.llama_index.search_retriever import SearchRetriever

__all__ = ["PackedPostprocessor", "PackedRetriever", "SearchRetriever"]
