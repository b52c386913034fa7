"""Three well-known chains; the only line that changes is the one that names the retriever.

python examples/langchain_chains.py

1. The LCEL chain of LangChain's RAG tutorial.
2. ``create_retrieval_chain``, as on its reference page.
3. A LangGraph of two nodes, retrieve and generate, as in langchain-ai/langgraph-101.
"""

from typing import Any, TypedDict

from langchain_classic.chains import create_retrieval_chain
from langchain_classic.chains.combine_documents import create_stuff_documents_chain
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnablePassthrough
from langgraph.graph import START, StateGraph

from ragpack import ContextPacker, open_decoder
from ragpack.cli.demo import handbook
from ragpack.corpus import read_passages
from ragpack.handoff.langchain import ChatRagpack
from ragpack.retrievers.faiss import FaissRetriever
from ragpack.retrievers.langchain import PackedRetriever, SearchRetriever

PROMPT = ChatPromptTemplate.from_template(
    "Answer the question from this context only:\n{context}\n\nQuestion: {input}"
)
QUESTION = "How much of the money paid on the false invoice of 2022 did the bank recover?"


def format_docs(documents: list[Document]) -> str:
    """The documents as the prompt shows them."""
    return "\n\n".join(document.page_content for document in documents)


def lcel_chain(retriever: BaseRetriever, llm: Runnable[Any, Any]) -> Runnable[str, str]:
    """Question in, answer out."""
    context = {"context": retriever | format_docs, "input": RunnablePassthrough()}
    return context | PROMPT | llm | StrOutputParser()


def retrieval_chain(retriever: BaseRetriever, llm: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """``{"input": question}`` in; ``context`` and ``answer`` out."""
    chain: Runnable[Any, Any] = create_retrieval_chain(
        retriever, create_stuff_documents_chain(llm, PROMPT)
    )
    return chain


class State(TypedDict, total=False):
    """What the graph's nodes share."""

    input: str
    context: list[Document]
    answer: str


def graph(retriever: BaseRetriever, llm: Runnable[Any, Any]) -> Any:
    """``{"input": question}`` in; the whole state out."""

    def retrieve(state: State) -> State:
        return {"context": retriever.invoke(state["input"])}

    def generate(state: State) -> State:
        asked = {"input": state["input"], "context": format_docs(state["context"])}
        return {"answer": (PROMPT | llm | StrOutputParser()).invoke(asked)}

    builder = StateGraph(State).add_sequence([retrieve, generate])
    return builder.add_edge(START, "retrieve").compile()


def main() -> None:
    """Each chain with the packed retriever, on the sample handbook."""
    index = FaissRetriever()
    with handbook() as corpus:
        index.add(read_passages(corpus))
    base = SearchRetriever(index=index)
    llm = ChatRagpack(decoder=open_decoder(), max_tokens=16)
    with ContextPacker("recomp-extractive", store="memory://", budget=150) as packer:
        retriever = PackedRetriever(base=base, packer=packer, title_key="title")  # was: base
        print("LCEL:     ", lcel_chain(retriever, llm).invoke(QUESTION))
        print("classic:  ", retrieval_chain(retriever, llm).invoke({"input": QUESTION})["answer"])
        state = graph(retriever, llm).invoke({"input": QUESTION})
        print("LangGraph:", state["answer"])
        for document in state["context"]:
            print(document.id, document.metadata["ragpack"])


if __name__ == "__main__":
    main()
