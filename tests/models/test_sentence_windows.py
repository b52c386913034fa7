"""Windows of a sentence scorer: nothing is lost, nothing is too long."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ragpack.errors import ConfigError
from ragpack.models.sentence_windows import collate, sentence_means, windows

sentences = st.lists(st.lists(st.integers(10, 99), max_size=40), max_size=12)


@given(sentences, st.integers(12, 40))
def test_windows_hold_every_token_once_and_fit(rows, limit) -> None:
    cut = list(windows([1, 2], [3], rows, (101, 102), limit))
    assert all(len(window.ids) <= limit for window in cut)
    held = [
        (owner, token)
        for window in cut
        for owner, token in zip(window.owners, window.ids, strict=True)
        if owner >= 0
    ]
    assert held == [(number, token) for number, row in enumerate(rows) for token in row]


def test_a_window_reads_query_title_text() -> None:
    (window,) = windows([1, 2], [3], [[4, 5], [6]], (101, 102), 20)
    assert window.ids == [101, 1, 2, 102, 3, 4, 5, 6, 102]
    assert window.types == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert window.owners == [-1, -1, -1, -1, -1, 0, 0, 1, -1]


def test_a_sentence_that_fits_a_window_is_not_split() -> None:
    first, second = windows([1], [], [[4] * 5, [5] * 6], (101, 102), 12)
    assert set(first.owners) == {-1, 0}
    assert set(second.owners) == {-1, 1}


def test_no_room_for_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="fill the window"):
        list(windows([1] * 10, [2], [[3]], (101, 102), 14))


def test_means_and_padding() -> None:
    batch = [*windows([1], [], [[4, 5]], (101, 102), 9), *windows([1], [], [[6]], (101, 102), 9)]
    ids, types, mask, owners = collate(batch)
    assert ids.shape == types.shape == mask.shape == owners.shape == (2, 6)
    assert mask.sum(1).tolist() == [6, 5]
    values = torch.arange(12.0).reshape(2, 6)
    assert sentence_means(values[:1], owners[:1], 2).tolist() == [3.5, 0.0]
