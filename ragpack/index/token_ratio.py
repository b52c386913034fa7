"""Tokens a character, so that progress can be told in tokens without counting them all."""

from collections.abc import Iterable, Iterator

from ragpack.corpus import BadRecord, Item
from ragpack.protocols import TokenCounter

__all__ = ["TokenRatio"]

_EVERY = 64


class TokenRatio:
    """Counts every 64th passage that passes by."""

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter
        self._tokens = self._characters = 0

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items."""
        for number, item in enumerate(items):
            if number % _EVERY == 0 and not isinstance(item, BadRecord):
                text = item.passage.full_text
                self._tokens += self._counter.count([text])[0]
                self._characters += len(text)
            yield item

    def tokens(self, characters: int) -> int:
        """About how many tokens so many characters are."""
        return round(characters * self._tokens / max(1, self._characters))
