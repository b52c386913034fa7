"""LLMLingua-2 here against ``llmlingua`` 0.2.2: the same random classifier, the same passages.

The classifier has the shape of multilingual BERT (or ``--shape tiny``, where the forward pass costs
little and the rest is seen) and a vocabulary learned from the sample handbook. Arms, in turn:
``llmlingua`` is upstream; ``cold`` computes every artifact and selects; ``forward`` is the bare
classifier on our batches, which no code around it can beat; ``select`` takes from artifacts that
are already there, as every later request does. tiktoken runs with a byte vocabulary, because its
own must be fetched. From the repository's root:

    python benchmarks/llmlingua2_speed.py
    python benchmarks/llmlingua2_speed.py --runs 5 --shape tiny
"""

import random
import tempfile
from pathlib import Path
from typing import Any

import llmlingua
import tiktoken
import torch
from common import interleave, parser, report, spread
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertConfig, BertForTokenClassification, BertTokenizer

from ragpack import Passage
from ragpack.cli.demo import handbook
from ragpack.compressors import _llmlingua2_words as reading
from ragpack.compressors.llmlingua2 import LLMLingua2
from ragpack.corpus import read_passages

MBERT_ROWS = 119_547 + 100


def make_classifier(folder: Path, texts: list[str], shape: str) -> None:
    """Save a random classifier whose name upstream accepts."""
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
    """Upstream's compressor on the classifier in ``folder``, without a download."""
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


def main() -> None:
    """Time every arm in turn and print the ratios."""
    options = parser(__doc__)
    options.add_argument("--shape", choices=("mbert", "tiny"), default="mbert")
    options.add_argument("--passages", type=int, default=30)
    options.set_defaults(runs=3)  # upstream takes a minute a round at BERT's size
    chosen = options.parse_args()
    torch.manual_seed(chosen.seed)
    with handbook() as corpus:
        known = read_passages(corpus)
    passages: list[Passage] = random.Random(chosen.seed).sample(known, chosen.passages)
    texts = [passage.text for passage in passages]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "bert-base-multilingual-cased"
        make_classifier(folder, [passage.text for passage in known], chosen.shape)
        theirs, ours = upstream(folder), LLMLingua2(str(folder), rate=0.5)
        stored = ours.compress(passages, None)
        chunks = [one for own in reading.chunks(texts, ours.vocabulary) for one in own]
        rows = [reading.sequence(chunk, ours.vocabulary) for chunk in chunks]
        arms = {
            "llmlingua": lambda: theirs.compress_prompt_llmlingua2(texts, rate=0.5),
            "cold": lambda: ours.select("", passages, ours.compress(passages, None)),
            "forward": lambda: ours.classifier.probabilities(rows),
            "select": lambda: ours.select("", passages, stored),
        }
        times = interleave(arms, chosen.runs)
    milliseconds = {name: spread(values) for name, values in times.items()}
    medians = {name: row["median"] for name, row in milliseconds.items()}
    report(
        {
            "shape": chosen.shape,
            "passages": len(passages),
            "tokens": sum(len(row) for row in rows),
            "seed": chosen.seed,
            "milliseconds": milliseconds,
            "times_faster_cold": round(medians["llmlingua"] / medians["cold"], 1),
            "times_faster_stored": round(medians["llmlingua"] / medians["select"], 1),
            "cold_over_forward": round(medians["cold"] / medians["forward"], 3),
        }
    )


if __name__ == "__main__":
    main()
