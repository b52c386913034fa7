"""What LLMLingua-2 asks of a token, answered once for each entry of a classifier's vocabulary.

Upstream asks again for every token of every text, in Python; here the answers are arrays.
"""

import string
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import Unigram, WordPiece

from ragpack.errors import ConfigError, UnsupportedModel
from ragpack.models import TokenClassifier

__all__ = ["Vocabulary"]

_CHUNK_ENDS = (".", "\n")


class Vocabulary:
    """A classifier's tokens under a choice of force tokens; each array has one entry a token id.

    Attributes:
        tokenizer: the classifier's, to which every force token is one token; it reads the text of
            a special token as text.
        texts: each token's text; XLM-RoBERTa's keeps its ``▁``.
        tails: each token's text within a word.
        inputs: the id that the classifier reads for a token.
        begins: whether a token begins a word.
        skipped: whether it belongs to no word.
        forced: whether it is always kept.
        force: number of the force token that it is, or -1.
        chunk_ends: ids at which a chunk ends if it can.
        around: ids before and behind a chunk.

    Raises:
        ConfigError: the classifier has no embedding to read a force token with.
        UnsupportedModel: neither a WordPiece (BERT) nor a Unigram (XLM-RoBERTa) vocabulary.
    """

    def __init__(
        self, classifier: TokenClassifier, force_tokens: Sequence[str], force_digits: bool
    ) -> None:
        mark, unknown = _mark_and_unknown(classifier)
        self.tokenizer, stand_ins = _with_force_tokens(classifier, force_tokens)
        added = list(stand_ins)
        size = self.tokenizer.get_vocab_size()
        self.texts = [self.tokenizer.id_to_token(number) or "" for number in range(size)]
        self.tails = [text.lstrip(mark) for text in self.texts]
        self.inputs = np.arange(size)
        self.inputs[added] = list(stand_ins.values())
        self.begins = self._flags(_beginning(mark, force_tokens))
        self.begins[added] = True
        self.skipped = np.isin(np.arange(size), [unknown, *_specials(classifier.tokenizer)])
        self.forced = self._flags(lambda text: text.lstrip(mark) in force_tokens)
        self.forced[added] = True
        if force_digits:
            self.forced |= self._flags(lambda text: any(map(str.isdecimal, text)))
        numbers = {text: number for number, text in enumerate(force_tokens)}
        self.force = np.array([numbers.get(text, -1) for text in self.texts])
        ends = [self.tokenizer.token_to_id(end) for end in _CHUNK_ENDS]
        self.chunk_ends = [number for number in ends if number is not None]
        # Upstream names BERT's special tokens whatever the vocabulary is, so that XLM-RoBERTa
        # reads the unknown token at both ends of a chunk.
        outer = [classifier.tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]")]
        self.around = [unknown if number is None else number for number in outer]

    def _flags(self, test: Callable[[str], bool]) -> NDArray[np.bool_]:
        return np.fromiter(map(test, self.texts), np.bool_, len(self.texts))


def _mark_and_unknown(classifier: TokenClassifier) -> tuple[str, int]:
    """The mark within words (``##``) or at their beginning (``▁``), and the unknown token's id."""
    model = classifier.tokenizer.model
    mark, unknown = ("▁", "<unk>") if isinstance(model, Unigram) else ("##", "[UNK]")
    number = classifier.tokenizer.token_to_id(unknown)
    if number is None or not isinstance(model, WordPiece | Unigram):
        raise UnsupportedModel(
            f"{classifier.name} has neither BERT's sort of vocabulary (WordPiece with [UNK]) nor "
            "XLM-RoBERTa's (Unigram with <unk>): LLMLingua-2 cannot tell where its words begin"
        )
    return mark, number


def _with_force_tokens(
    classifier: TokenClassifier, force_tokens: Sequence[str]
) -> tuple[Tokenizer, dict[int, int]]:
    """The tokenizer with force tokens added that were not one token, and what they are read as.

    Upstream replaces them in the text by ``[NEW0]``, ``[NEW1]`` and so on, and adds these to the
    classifier. To add them to the tokenizer instead leaves the offsets as they are.
    """
    tokenizer = Tokenizer.from_str(classifier.tokenizer.to_str())
    tokenizer.encode_special_tokens = True
    size = tokenizer.get_vocab_size()
    read = tokenizer.encode_batch(list(force_tokens), add_special_tokens=False)
    stand_ins: dict[int, int] = {}
    for number, (text, encoding) in enumerate(zip(force_tokens, read, strict=True)):
        if len(encoding.ids) == 1:
            continue
        known = tokenizer.token_to_id(f"[NEW{number}]")
        stand_in = size + number if known is None else known
        if stand_in >= classifier.embeddings:
            raise ConfigError(
                f"{classifier.name} cannot read the force token {text!r}, which is not one of its "
                f"tokens: it has {classifier.embeddings} embeddings and none for upstream's added "
                f"token [NEW{number}], id {stand_in}"
            )
        tokenizer.add_tokens([AddedToken(text, normalized=False)])
        own = tokenizer.encode(text, add_special_tokens=False).ids[0]  # now it is one token
        stand_ins[own] = stand_in
    return tokenizer, stand_ins


def _beginning(mark: str, force_tokens: Sequence[str]) -> Callable[[str], bool]:
    """Whether a token begins a word, by upstream's rule for the sort of vocabulary."""

    def begins_wordpiece(token: str) -> bool:
        return not token.startswith(mark) or token.lstrip(mark) in force_tokens

    def begins_unigram(token: str) -> bool:
        # "in string.punctuation" is upstream's: it holds for "()" as well as for "(".
        return token.startswith(mark) or token in string.punctuation or token in force_tokens

    return begins_unigram if mark == "▁" else begins_wordpiece


def _specials(tokenizer: Tokenizer) -> list[int]:
    added = tokenizer.get_added_tokens_decoder()
    return [number for number, token in added.items() if token.special]
