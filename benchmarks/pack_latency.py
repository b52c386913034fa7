"""Warm packing of cached passages against LangChain's EmbeddingsFilter on the same sentences.

Both arms use the same encoder object and the same 20 passages with their sentences; ours has the
sentence vectors in the store (``--store``), theirs embeds every sentence at each request, as it
always does. The query is another one in every round. Run from the repository's root:

    python benchmarks/pack_latency.py --runs 30
    python benchmarks/pack_latency.py --runs 30 --store redis://127.0.0.1:6379/0
"""

import itertools
import random
import tempfile

from common import interleave, parser, report, spread
from langchain_classic.retrievers.document_compressors import EmbeddingsFilter
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from ragpack import ContextPacker, Passage
from ragpack.cli.demo import handbook, questions
from ragpack.compressors.recomp_extractive import RecompExtractive
from ragpack.corpus import read_passages
from ragpack.models import load_encoder
from ragpack.protocols import TextEncoder
from ragpack.sentences import sentence_spans


class SharedEncoder(Embeddings):
    """The same encoder, as LangChain wants it."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of ``texts``."""
        return [list(map(float, row)) for row in self._encoder.encode(texts)]

    def embed_query(self, text: str) -> list[float]:
        """Vector of ``text``."""
        return self.embed_documents([text])[0]


def sentences(passages: list[Passage]) -> list[Document]:
    """A document for each sentence, as EmbeddingsFilter needs them to filter sentences."""
    return [
        Document(page_content=passage.text[start:end], metadata={"id": passage.id})
        for passage in passages
        for start, end in sentence_spans(passage.text)
    ]


def main() -> None:
    """Time both arms in turn and print the ratio."""
    options = parser(__doc__)
    options.add_argument("--store", help="store URL; an embedded store in a temporary folder")
    options.add_argument("--passages", type=int, default=20)
    chosen = options.parse_args()
    with handbook() as corpus:
        passages = random.Random(chosen.seed).sample(read_passages(corpus), chosen.passages)
    asked = itertools.cycle(sample["question"] for sample in questions())
    encoder = load_encoder("all-minilm-l6-v2")
    filtering = EmbeddingsFilter(embeddings=SharedEncoder(encoder), k=12, similarity_threshold=None)
    documents = sentences(passages)
    with tempfile.TemporaryDirectory() as folder:
        store = chosen.store or f"lmdb://{folder}"
        with ContextPacker(RecompExtractive(encoder, top_n=12), store=store) as packer:
            packer.pack("warm up", passages)
            packer.flush()
            hits = packer.pack("warm up", passages).report.hits
            arms = {
                "ragpack": lambda: packer.pack(next(asked), passages),
                "embeddings_filter": lambda: filtering.compress_documents(documents, next(asked)),
                "query_embedding": lambda: encoder.encode([next(asked)]),
            }
            times = interleave(arms, chosen.runs)
    medians = {name: spread(values) for name, values in times.items()}
    ratio = medians["embeddings_filter"]["median"] / medians["ragpack"]["median"]
    report(
        {
            "passages": len(passages),
            "sentences": len(documents),
            "hits": hits,
            "seed": chosen.seed,
            "milliseconds": medians,
            "times_faster_than_embeddings_filter": round(ratio, 2),
        }
    )


if __name__ == "__main__":
    main()
