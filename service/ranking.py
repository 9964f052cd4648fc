"""A list that is always in order, cheap to change anywhere.

Pure data structure: it knows nothing of what it orders. Items are tuples that are
all different; each change costs a search in a list of chunks and one in a chunk.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item", bound="tuple[Any, ...]")

_CHUNK = 1000
"""Items after a split; a chunk is split when it is twice as long."""


class Ranking(Generic[Item]):
    """Items in ascending order."""

    __slots__ = ("_chunks", "_lasts", "_size")

    def __init__(self) -> None:
        self._chunks: list[list[Item]] = []
        self._lasts: list[Item] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Item]:
        """Iterate in order; the ranking must not change meanwhile."""
        for chunk in self._chunks:
            yield from chunk

    @property
    def first(self) -> Item | None:
        """The smallest item, None where there is none."""
        return self._chunks[0][0] if self._chunks else None

    def add(self, item: Item) -> None:
        """Put `item` where it belongs."""
        self._size += 1
        if not self._chunks:
            self._chunks.append([item])
            self._lasts.append(item)
            return
        at = bisect_left(self._lasts, item)
        if at == len(self._lasts):
            at -= 1
            self._chunks[at].append(item)
            self._lasts[at] = item
        else:
            insort(self._chunks[at], item)
        chunk = self._chunks[at]
        if len(chunk) > 2 * _CHUNK:
            self._chunks.insert(at + 1, chunk[_CHUNK:])
            del chunk[_CHUNK:]
            self._lasts.insert(at, chunk[-1])

    def remove(self, item: Item) -> None:
        """Take `item` out; raises `ValueError` where it is not in."""
        at, within = self._place(item)
        chunk = self._chunks[at]
        del chunk[within]
        self._size -= 1
        if not chunk:
            del self._chunks[at]
            del self._lasts[at]
        elif within == len(chunk):
            self._lasts[at] = chunk[-1]

    def before(self, item: Item) -> int:
        """Count the items that come before `item`; raises `ValueError` where it is not in."""
        at, within = self._place(item)
        return sum(map(len, self._chunks[:at])) + within

    def _place(self, item: Item) -> tuple[int, int]:
        at = bisect_left(self._lasts, item)
        if at < len(self._chunks):
            chunk = self._chunks[at]
            within = bisect_left(chunk, item)
            if within < len(chunk) and chunk[within] == item:
                return at, within
        raise ValueError("the item is not in the ranking")
