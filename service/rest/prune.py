"""Retention over REST: finished jobs forgotten by age, number and size."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from ..keys import DESK
from ..model import Bytes, Seconds
from ..retention import Retention
from ..routes import Routes
from ..security import Scope
from ..store.filters import JobFilter
from .exchange import answer, read
from .jobs import JobChoice

MOST_IDS = 1000


class PruneRequest(BaseModel):
    """What is kept; what any of the rules gives up is forgotten."""

    model_config = ConfigDict(extra="forbid")

    older_than: Seconds | None = Field(
        default=None, description="Jobs that ended longer ago go: seconds, or such as '30d'."
    )
    keep: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = Field(
        default=None, description="All but so many go; those that ended last stay."
    )
    max_size: Bytes | None = Field(
        default=None,
        description="The oldest go until the folders of the others are together no larger.",
    )
    filter: JobChoice | None = Field(
        default=None, description="Only these are looked at; all finished jobs where not given."
    )
    dry_run: bool = Field(default=False, description="Tell what would go, and let it stay.")

    @model_validator(mode="after")
    def _some_rule(self) -> PruneRequest:
        if self.older_than is None and self.keep is None and self.max_size is None:
            raise ValueError("say what is kept: 'older_than', 'keep' or 'max_size'")
        return self


class PruneAnswer(TypedDict):
    """What went, or would go; at most 1,000 of the ids are named."""

    jobs: int
    ids: list[str]
    bytes: int
    leftovers: int
    dry_run: bool


async def prune(request: web.Request) -> web.Response:
    """Forget finished jobs by the rules of the request."""
    wanted = await read(request, PruneRequest)
    rules = Retention(older_than=wanted.older_than, keep=wanted.keep, max_size=wanted.max_size)
    chosen = JobFilter() if wanted.filter is None else wanted.filter.filter()
    found = await request.app[DESK].prune(rules, chosen, dry_run=wanted.dry_run)
    view: PruneAnswer = {
        "jobs": len(found.ids),
        "ids": [str(job_id) for job_id in found.ids[:MOST_IDS]],
        "bytes": found.size,
        "leftovers": found.leftovers,
        "dry_run": wanted.dry_run,
    }
    return answer(view)


def register(routes: Routes) -> None:
    """Add the routes of this module."""
    routes.add(
        "POST",
        "/api/prune",
        prune,
        scope=Scope.FULL,
        tag="jobs",
        summary="Forget finished jobs by age, number and size, with their files",
        body=PruneRequest,
        answer=PruneAnswer,
    )
