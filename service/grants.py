"""What attempts hold while they are out there, and who inherits it.

A slot is one grant of the ledger together with the attempts that use it one after the
other: the present one, and those handed over behind it. Pure bookkeeping; it must not
know jobs, nor whether anything fits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..scheduler_adapters.contract import ResourceRequest
from .resources import Ledger


@dataclass(slots=True)
class Slot:
    """One grant of resources: the attempt that uses it, and those that inherit it."""

    key: str
    """Of the grant in the ledger."""
    current: str
    since: float
    """When the present attempt got the slot, by the clock of `Grants`."""
    waiting: list[str] = field(default_factory=list)
    """Tags of attempts already handed over, in the order in which they will start."""

    @property
    def last(self) -> str:
        """The attempt behind which the next heir would stand."""
        return self.waiting[-1] if self.waiting else self.current


class Grants:
    """The slots, by the tags of the attempts that use them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.ledger = Ledger()
        self._by_tag: dict[str, Slot] = {}
        self._slots: dict[str, Slot] = {}

    def __iter__(self) -> Iterator[Slot]:
        return iter(list(self._slots.values()))

    def __contains__(self, tag: object) -> bool:
        """True while attempt `tag` holds something: a tree that is not empty yet counts."""
        return tag in self._by_tag

    def give(
        self, tag: str, request: ResourceRequest, *, gpu_ids: tuple[int, ...] | None = None
    ) -> None:
        """Give an attempt a slot of its own; `gpu_ids` where it has GPUs already."""
        self.ledger.grant(tag, request, gpu_ids=gpu_ids)
        self._by_tag[tag] = self._slots[tag] = Slot(key=tag, current=tag, since=self._clock())

    def inherit(self, slot: Slot, tag: str) -> None:
        """Let attempt `tag` use `slot` after those before it."""
        slot.waiting.append(tag)
        self._by_tag[tag] = slot

    def clear(self, tag: str) -> None:
        """Nothing of attempt `tag` is left, or it never was: pass its slot on, or free it."""
        slot = self._by_tag.pop(tag, None)
        if slot is None:
            return
        if tag in slot.waiting:
            slot.waiting.remove(tag)
        elif slot.waiting:
            slot.current, slot.since = slot.waiting.pop(0), self._clock()
        else:
            del self._slots[slot.key]
            self.ledger.release(slot.key)

    def request_of(self, slot: Slot) -> ResourceRequest:
        return self.ledger.request_of(slot.key)

    def age(self, slot: Slot) -> float:
        """Seconds for which the present attempt of `slot` has had it."""
        return self._clock() - slot.since

    def waiting(self, longer_than: float = 0.0) -> list[str]:
        """Tags of the attempts that wait behind another which has its slot for so long."""
        return [
            tag
            for slot in self._slots.values()
            if slot.waiting and self.age(slot) >= longer_than
            for tag in slot.waiting
        ]
