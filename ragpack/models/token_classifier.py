"""Token classifiers: for each token of a sequence, the probability of each label."""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForTokenClassification

from ragpack.errors import ConfigError, UnsupportedModel
from ragpack.models.batches import token_batches
from ragpack.models.checkpoint import checkpoint_folder, quiet_progress
from ragpack.models.device import best_device
from ragpack.models.digests import tokenizer_digest, weights_digest
from ragpack.models.files import resolve
from ragpack.models.token_counter import plain_tokenizer
from ragpack.types import Fingerprint

__all__ = ["TokenClassifier", "load_token_classifier"]

_BATCH_TOKENS = 8192


@lru_cache(maxsize=2)
def load_token_classifier(name: str, device: str | None = None) -> "TokenClassifier":
    """A token classifier by name, in float32; calls with equal arguments share one model.

    Args:
        name: a local path, a model package or a hub id, see :func:`ragpack.models.resolve`.
        device: such as ``"cpu"`` or ``"cuda:0"``; a GPU where there is one.

    Raises:
        ConfigError: no such model, no safetensors weights, or no token classifier.
        UnsupportedModel: it has no ``tokenizer.json``.
    """
    files = resolve(name)
    folder = checkpoint_folder(files)
    weights = weights_digest(folder)  # first, because it refuses pickle weights
    if not (folder / "tokenizer.json").is_file():
        raise UnsupportedModel(f"{files.name} has no tokenizer.json, which tells where tokens lie")
    try:
        with quiet_progress():
            model, loading = AutoModelForTokenClassification.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except ValueError as error:
        raise ConfigError(f"{files.name} is no token classifier: {error}") from error
    if missing := sorted(loading["missing_keys"]):
        raise ConfigError(f"{files.name} is no token classifier: it has no weights {missing}")
    model.to(device or best_device())
    tokenizer = plain_tokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")))
    return TokenClassifier(model, tokenizer, files.name, weights, tokenizer_digest(folder))


class TokenClassifier:
    """A transformer with a label for each token; may be called from several threads.

    ``tokenizer`` cuts nothing, pads nothing and reads the text of a special token as text.
    """

    def __init__(
        self, model: Any, tokenizer: Tokenizer, name: str, weights: str, vocabulary: str
    ) -> None:
        self.tokenizer = tokenizer
        self.name = name
        self._model = model
        self._digests = weights, vocabulary

    @property
    def labels(self) -> int:
        """Number of labels."""
        labels: int = self._model.config.num_labels
        return labels

    @property
    def embeddings(self) -> int:
        """Number of token ids that the model has an embedding for."""
        rows: int = self._model.get_input_embeddings().weight.shape[0]
        return rows

    @property
    def positions(self) -> int:
        """Longest sequence that the model can read, in tokens."""
        config = self._model.config
        # RoBERTa counts positions from the number behind its padding token.
        offset = config.pad_token_id + 1 if "roberta" in config.model_type else 0
        positions: int = config.max_position_embeddings - offset
        return positions

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Weights and tokenizer."""
        weights, vocabulary = self._digests
        return Fingerprint(
            method="token-classifier",
            model=self.name,
            weights=weights,
            tokenizer=vocabulary,
            dtype="float32",
        )

    def probabilities(self, rows: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """Probability of each label [tokens, labels] for each row of token ids [tokens].

        A row's result depends on the others in the call by rounding alone.
        """
        found: dict[int, NDArray[np.float32]] = {}
        for batch in token_batches([len(row) for row in rows], _BATCH_TOKENS):
            for row, values in zip(batch, self._forward([rows[row] for row in batch]), strict=True):
                found[row] = values[: len(rows[row])]
        return [found[row] for row in range(len(rows))]

    def _forward(self, batch: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Probabilities [len(batch), longest, labels]; those of the padding mean nothing."""
        device = self._model.device
        ids = pad_sequence([torch.from_numpy(row) for row in batch], batch_first=True)
        lengths = torch.tensor([len(row) for row in batch])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        with torch.inference_mode():
            logits = self._model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
        values: NDArray[np.float32] = logits.float().softmax(-1).cpu().numpy()
        return values
