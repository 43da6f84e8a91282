"""Remembers what was computed for a text."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from onesearch.shoppers.packing import LONGEST

T = TypeVar("T")


class TextCache(Generic[T]):
    """The values of the texts asked for last; what is unknown of a batch is made in one call.

    Texts longer than a past query can be are never kept: a few of 100 kB would outweigh all others.
    """

    def __init__(self, make: Callable[[list[str]], Sequence[T]], size: int) -> None:
        self._make, self._size = make, size
        self._known: OrderedDict[str, T] = OrderedDict()

    def of(self, texts: Sequence[str]) -> list[T]:
        """One value a text."""
        unknown = [text for text in dict.fromkeys(texts) if text not in self._known]
        made = dict(zip(unknown, self._make(unknown), strict=True)) if unknown else {}
        values = [made[text] if text in made else self._known[text] for text in texts]
        for text, value in zip(texts, values, strict=True):
            if len(text) <= LONGEST:
                self._known[text] = value
                self._known.move_to_end(text)
        while len(self._known) > self._size:
            self._known.popitem(last=False)
        return values
