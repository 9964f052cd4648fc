"""What lists can be asked for. Pure: reads words, knows no SQL."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from ...errors import InvalidInput
from ..model import Job
from ..states import JobState, parse_state

_TERM = re.compile(r'(?:(?P<key>[a-z]+):)?(?:"(?P<quoted>[^"]*)"|(?P<plain>\S+))')
MAX_TEXT = 1000
MAX_IDS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Choose jobs; everything that is given must hold.

    Letters match in either case. Raises `InvalidInput` when it is read, not when
    it is made.
    """

    states: frozenset[JobState] = frozenset()
    """Any of these; empty means all."""
    name: str | None = None
    """Part of the name; with ``*`` or ``?`` a pattern for all of it."""
    project: str | None = None
    group: str | None = None
    q: str | None = None
    """Words, each found in name, project, group, id or tags; ``state:failed``,
    ``name:sweep*``, ``project:``, ``group:``, ``tag:key=value`` and ``id:17`` narrow a
    word; quotes keep spaces together."""
    tag: str | None = None
    """``key`` or ``key=value``."""
    ids: Collection[int] | None = None
    active: bool = False
    """Only jobs that are not over."""

    @property
    def everything(self) -> bool:
        """True where nothing is left out."""
        return self == JobFilter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some jobs of a list, newest first."""

    jobs: list[Job]
    next_cursor: str | None = None
    """Where the rest begins; None where there is none."""
    total: int | None = None
    """How many there are in all, where that was asked for."""


@dataclass(frozen=True, slots=True)
class Search:
    """A filter whose text has been read."""

    filters: tuple[JobFilter, ...]
    """All of these must hold; none of them has a `q`."""
    words: tuple[str, ...] = field(default=())


def read(wanted: JobFilter) -> Search:
    """Take the text of a filter apart; raises `InvalidInput` with what is wrong."""
    if wanted.ids is not None and len(wanted.ids) > MAX_IDS:
        raise InvalidInput(f"a filter takes at most {MAX_IDS} ids, not {len(wanted.ids)}")
    filters = [replace(wanted, q=None)]
    words: list[str] = []
    text = wanted.q or ""
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"a search text has at most {MAX_TEXT} characters, not {len(text)}")
    for term in _TERM.finditer(text):
        key = term["key"]
        value = term["quoted"] if term["quoted"] is not None else term["plain"]
        narrowed = _narrowed(key, value) if key else None
        if narrowed is not None:
            filters.append(narrowed)
        elif term[0] != '""':
            words.append(value if key is None else term[0])
    return Search(tuple(filters), tuple(words))


def _narrowed(key: str, value: str) -> JobFilter | None:
    if key == "state":
        return JobFilter(states=frozenset(parse_state(word) for word in value.split(",") if word))
    if key == "id":
        numbers = [word for word in value.split(",") if word]
        if not all(number.isascii() and number.isdigit() for number in numbers):
            raise InvalidInput(f"'id:' takes numbers such as id:17 or id:17,18, not {value!r}")
        return JobFilter(ids=tuple(min(int(number), 1 << 62) for number in numbers))
    if key == "name":
        return JobFilter(name=value)
    if key == "project":
        return JobFilter(project=value)
    if key == "group":
        return JobFilter(group=value)
    if key == "tag":
        return JobFilter(tag=value)
    return None
