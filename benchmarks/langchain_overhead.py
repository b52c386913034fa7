"""What the LangChain wrapper costs beyond the inner retriever, with the identity method.

Three arms over the same 20 documents: the inner retriever alone, ``packer.pack`` on passages that
are ready, and the wrapped retriever, which does both. Differences are taken within a round. Run
from the repository's root:

    python benchmarks/langchain_overhead.py --runs 300
"""

from typing import Any

from common import interleave, parser, report, spread
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from ragpack import ContextPacker
from ragpack.cli.demo import handbook
from ragpack.corpus import read_passages
from ragpack.retrievers.langchain import PackedRetriever


class Shelf(BaseRetriever):
    """Gives its documents at once."""

    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return list(self.documents)


def main() -> None:
    """Time the arms in turn and print what each part adds."""
    options = parser(__doc__)
    options.add_argument("--documents", type=int, default=20)
    chosen = options.parse_args()
    with handbook() as corpus:
        passages = read_passages(corpus)[: chosen.documents]
    inner = Shelf(documents=[Document(passage.text, id=passage.id) for passage in passages])
    with ContextPacker("identity", store="memory://") as packer:
        wrapped = PackedRetriever(base=inner, packer=packer)
        arms = {
            "inner": lambda: inner.invoke("?"),
            "pack": lambda: packer.pack("?", passages),
            "wrapped": lambda: wrapped.invoke("?"),
        }
        times = interleave(arms, chosen.runs)
    rounds = list(zip(times["inner"], times["pack"], times["wrapped"], strict=True))
    report(
        {
            "documents": chosen.documents,
            "ms": {name: spread(values) for name, values in times.items()},
            "wrapper_ms": spread([whole - alone - pack for alone, pack, whole in rounds]),
            "beyond_inner_ms": spread([whole - alone for alone, _, whole in rounds]),
        }
    )


if __name__ == "__main__":
    main()
