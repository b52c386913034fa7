"""ragpack's text methods beside LangChain's EmbeddingsFilter and llmlingua, on the same passages.

The passages are of the sample handbook; the query is another one in every round. Every arm that has
a sentence encoder has the same one, and both LLMLingua-2 arms have the same random classifier, of
the shape of multilingual BERT (``--shape tiny``: so small that only the code around it is seen)
with a vocabulary learned from the handbook. Arms, in turn:

- ``NAME, new``: a request whose passages were never seen, with a store that is empty;
- ``NAME, stored``: the same from a store that has them (for ``exit-mini``: under the same query);
- ``EmbeddingsFilter``: LangChain's, over the same sentences; it embeds them at each request;
- ``llmlingua``: llmlingua 0.2.2, LLMLingua-2 path; tiktoken runs with a byte vocabulary, because
  its own would have to be fetched;
- ``query embedding`` and ``classifier``: the bare networks, below which no code can come.

From the repository's root:

    python benchmarks/side_by_side.py
    python benchmarks/side_by_side.py --runs 10 --shape tiny --store redis://127.0.0.1:6379/0
"""

import itertools
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import llmlingua
import tiktoken
import torch
from common import interleave, parser, report, spread
from langchain_classic.retrievers.document_compressors import EmbeddingsFilter
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertConfig, BertForTokenClassification, BertTokenizer

from ragpack import ContextPacker, Passage
from ragpack.cli.demo import handbook, questions
from ragpack.compressors import _llmlingua2_words as reading
from ragpack.compressors.exit_mini import ExitMini
from ragpack.compressors.llmlingua2 import LLMLingua2
from ragpack.compressors.recomp_extractive import RecompExtractive
from ragpack.corpus import read_passages
from ragpack.models import load_encoder
from ragpack.protocols import Compressor, TextEncoder
from ragpack.sentences import sentence_spans

MBERT_ROWS = 119_547 + 100
KEPT_SENTENCES = 12
RATE = 0.5

Arms = dict[str, Callable[[], Any]]


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


def make_classifier(folder: Path, texts: list[str], shape: str) -> None:
    """Save a random classifier whose name llmlingua accepts."""
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer = normalizers.BertNormalizer(lowercase=False)
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=8000, special_tokens=special, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    tokenizer = BertTokenizer(vocab=learner.get_vocab(), do_lower_case=False)
    config = BertConfig(vocab_size=MBERT_ROWS)  # BERT base but for the vocabulary
    if shape == "tiny":
        config.hidden_size, config.intermediate_size = 64, 128
        config.num_hidden_layers, config.num_attention_heads = 2, 2
    BertForTokenClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def upstream(folder: Path) -> Any:
    """The compressor of llmlingua on the classifier in ``folder``, without a download."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding(
        name="bytes", pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={}
    )
    tiktoken.encoding_for_model = lambda model_name: encoding
    return llmlingua.PromptCompressor(
        str(folder),
        device_map="cuda" if torch.cuda.is_available() else "cpu",
        model_config={"trust_remote_code": False, "torch_dtype": torch.float32},
        use_llmlingua2=True,
    )


@contextmanager
def ours(method: Compressor, passages: list[Passage], runs: int, url: str | None) -> Iterator[Arms]:
    """The two arms of a method; each of them meets another query in every round."""
    asked = [sample["question"] for sample in questions()]
    fresh, again = itertools.cycle(reversed(asked)), itertools.cycle(asked)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        known = stack.enter_context(ContextPacker(method, store=url or f"lmdb://{folder}"))
        for query in asked[: runs + 1] if method.query_aware else asked[-1:]:
            known.pack(query, passages)
        known.flush()

        def new() -> None:
            with ContextPacker(method, store="memory://") as packer:
                packer.pack(next(fresh), passages)

        yield {
            f"{method.name}, new": new,
            f"{method.name}, stored": lambda: known.pack(next(again), passages),
        }


def main() -> None:
    """Time every arm in turn and print the ratios."""
    options = parser(__doc__)
    options.add_argument("--store", help="store URL; an embedded store in a temporary folder")
    options.add_argument("--passages", type=int, default=20)
    options.add_argument("--shape", choices=("mbert", "tiny"), default="mbert")
    options.set_defaults(runs=3)  # llmlingua takes a minute a round at BERT's size
    chosen = options.parse_args()
    torch.manual_seed(chosen.seed)
    with handbook() as corpus:
        known = read_passages(corpus)
    passages: list[Passage] = random.Random(chosen.seed).sample(known, chosen.passages)
    texts, documents = [passage.text for passage in passages], sentences(passages)
    turn = itertools.cycle(sample["question"] for sample in questions())
    encoder = load_encoder("all-minilm-l6-v2")
    filtering = EmbeddingsFilter(
        embeddings=SharedEncoder(encoder), k=KEPT_SENTENCES, similarity_threshold=None
    )
    with ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory())
        folder = Path(made) / "bert-base-multilingual-cased"
        make_classifier(folder, [passage.text for passage in known], chosen.shape)
        theirs, words = upstream(folder), LLMLingua2(str(folder), rate=RATE)
        chunks = [one for own in reading.chunks(texts, words.vocabulary) for one in own]
        rows = [reading.sequence(chunk, words.vocabulary) for chunk in chunks]
        arms: Arms = {}
        for method in (RecompExtractive(encoder, top_n=KEPT_SENTENCES), ExitMini(), words):
            arms |= stack.enter_context(ours(method, passages, chosen.runs, chosen.store))
        arms |= {
            "EmbeddingsFilter": lambda: filtering.compress_documents(documents, next(turn)),
            "llmlingua": lambda: theirs.compress_prompt_llmlingua2(texts, rate=RATE),
            "query embedding": lambda: encoder.encode([next(turn)]),
            "classifier": lambda: words.classifier.probabilities(rows),
        }
        times = interleave(arms, chosen.runs)
    milliseconds = {name: spread(values) for name, values in times.items()}
    medians = {name: row["median"] for name, row in milliseconds.items()}
    report(
        {
            "passages": len(passages),
            "sentences": len(documents),
            "shape": chosen.shape,
            "seed": chosen.seed,
            "milliseconds": milliseconds,
            "times_slower": {
                "EmbeddingsFilter over recomp-extractive, stored": _ratio(
                    medians, "EmbeddingsFilter", "recomp-extractive, stored"
                ),
                "llmlingua over llmlingua2, new": _ratio(medians, "llmlingua", "llmlingua2, new"),
                "llmlingua over llmlingua2, stored": _ratio(
                    medians, "llmlingua", "llmlingua2, stored"
                ),
            },
        }
    )


def _ratio(medians: dict[str, float], slow: str, quick: str) -> float:
    return round(medians[slow] / medians[quick], 1)


if __name__ == "__main__":
    main()
