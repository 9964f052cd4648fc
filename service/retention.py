"""Which finished jobs are to be forgotten.

Pure: facts and the time come in as arguments. It must not know the store or folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A job that is over."""

    id: int
    finished_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What is kept; what any of the rules gives up is forgotten. None means no such rule."""

    older_than: float | None = None
    """Seconds: a job that ended longer ago goes."""
    keep: int | None = None
    """All but so many go; those that ended last stay."""
    max_size: int | None = None
    """Bytes: the oldest go until the folders of the others are together no larger."""

    @property
    def asks_nothing(self) -> bool:
        """True where there is no rule at all, and nothing would ever go."""
        return self.older_than is None and self.keep is None and self.max_size is None


def select(
    jobs: Sequence[Finished], rules: Retention, *, now: float, sizes: Mapping[int, int]
) -> list[int]:
    """Return the ids of those of `jobs` that are to be forgotten, the oldest first.

    `sizes` holds bytes by id, and is asked for only with `max_size`. A clock that was set
    back does not make a job old: one that ended in the future has no age.
    """
    ordered = sorted(jobs, key=lambda job: (job.finished_at, job.id), reverse=True)
    gone: list[int] = []
    kept = 0
    size = 0
    full = False
    for job in ordered:
        too_old = rules.older_than is not None and now - job.finished_at > rules.older_than
        too_many = rules.keep is not None and kept >= rules.keep
        if rules.max_size is not None and not (too_old or too_many or full):
            # Once one does not fit, no older one stays in its place.
            full = size + sizes.get(job.id, 0) > rules.max_size
        if too_old or too_many or full:
            gone.append(job.id)
        else:
            kept += 1
            size += sizes.get(job.id, 0)
    return gone[::-1]
