"""A chain whose decoder starts from stored keys and values instead of reading the passages.

python examples/langchain_kv.py

A text method changes what the model reads, so any chat model will do. ``ape`` and ``kv-reuse``
keep what the model made of each passage, which only the model itself can take: ``PackContext``
carries it through the chain, and ``ChatRagpack`` hands it over.
"""

from langchain_core.runnables import RunnablePassthrough

from ragpack import ContextPacker, open_decoder
from ragpack.cli.demo import handbook
from ragpack.corpus import read_passages
from ragpack.handoff.langchain import ChatRagpack
from ragpack.retrievers.faiss import FaissRetriever
from ragpack.retrievers.langchain import PackContext, SearchRetriever

QUESTION = "How much of the money paid on the false invoice of 2022 did the bank recover?"


def main() -> None:
    """Ask twice: the first answer fills the store, the second starts from it."""
    index = FaissRetriever()
    with handbook() as corpus:
        index.add(read_passages(corpus))
    retriever = SearchRetriever(index=index, k=4)
    model = ChatRagpack(decoder=open_decoder(), max_tokens=16)
    with ContextPacker("kv-reuse", store="memory://") as packer:
        pack = PackContext(packer=packer, title_key="title")
        chain = {"context": retriever, "question": RunnablePassthrough()} | pack | model
        for _ in range(2):
            chunks = list(chain.stream(QUESTION))
            packer.flush()
            print("".join(chunk.text for chunk in chunks))
            print(f"  first token after {chunks[-1].response_metadata['ttft_ms']:.0f} ms")


if __name__ == "__main__":
    main()
