"""What may be used, what is granted, and what could never be.

Pure: facts about the host come in as `HostFacts`. Amounts are kept by dimension,
a plain word each ("cores", "memory", "license:hfss", …), so that everything that is
counted is counted by the same few lines. It must not know queues or priorities.

Jobs of this machine occupy a place, cores, memory, disk, GPUs and licences. Jobs of
another target occupy a place in that target's queue, and licences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..errors import InvalidInput, UsageError
from ..scheduler_adapters.contract import ResourceRequest
from .model import Bytes, QueuedRequest, Word
from .quantities import format_size

if TYPE_CHECKING:
    from .settings import Settings

LOCAL = "local"
"""The target that is this machine."""

JOBS = "jobs"
CORES = "cores"
MEMORY = "memory"
DISK = "disk"
GPUS = "gpus"
LICENSE = "license:"
SUBMITTED = "submitted:"
QUEUE = "queue:"
"""Before "dimension:name" of what is counted in one queue of this machine."""

Needs = tuple[tuple[str, int], ...]
"""Dimensions and amounts, each amount at least 1."""


def needs_of(request: ResourceRequest, target: str = LOCAL) -> Needs:
    """Return what a job of `request` occupies while it runs on `target`."""
    licenses = [(LICENSE + name, count) for name, count in request.licenses]
    if target != LOCAL:
        return ((SUBMITTED + target, 1), *licenses)
    needs = [(JOBS, 1), (CORES, request.cores)]
    if request.memory:
        needs.append((MEMORY, request.memory))
    if request.gpus:
        needs.append((GPUS, request.gpus))
    needs += licenses
    if isinstance(request, QueuedRequest):
        needs += _of_queue(request)
    if request.disk:
        # The last one, so that it is seen where nothing but the host's disk is lacking.
        needs.append((DISK, request.disk))
    return tuple(needs)


def _of_queue(request: QueuedRequest) -> list[tuple[str, int]]:
    wanted = (
        (JOBS, 1),
        (CORES, request.cores),
        (MEMORY, request.memory),
        (GPUS, request.gpus),
    )
    return [(f"{QUEUE}{name}:{request.queue}", count) for name, count in wanted if count]


def size_class(size: int) -> int:
    """Round bytes up to a step of an eighth of their power of two: at most 12.5 % more.

    For grouping alike requests only; what is counted stays exact.
    """
    if size <= 8:
        return size
    shift = (size - 1).bit_length() - 4
    return -(-size >> shift) << shift


def below_class(size: int) -> int:
    """Return the largest size that is in a smaller class than `size`."""
    rounded = size_class(size)
    if rounded <= 8:
        return max(0, rounded - 1)
    return rounded - (1 << (rounded - 1).bit_length() - 4)


# -- limits ----------------------------------------------------------------------------


def _no_limit(value: object) -> object:
    """Read the words for "no limit" that the settings know as well."""
    if isinstance(value, str) and value.strip().lower() in ("none", "unlimited", "off"):
        return None
    return value


Count = Annotated[int, Field(ge=0, le=1_000_000)]
Cores = Annotated[int, Field(ge=1, le=1_000_000)]
Percent = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
_OrNone = BeforeValidator(_no_limit)


class TargetLimits(BaseModel):
    """What one external scheduler is given at most."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_submitted: Annotated[Count | None, _OrNone] = None
    """Jobs of ours in its queue, pending or running."""


class QueueLimits(BaseModel):
    """What the jobs of one queue of this machine may occupy together, within the whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_concurrent_jobs: Annotated[Count | None, _OrNone] = None
    max_cores: Annotated[Cores | None, _OrNone] = None
    max_memory: Annotated[Bytes | None, _OrNone] = None
    max_gpus: Annotated[Count | None, _OrNone] = None

    def amounts(self) -> dict[str, int]:
        """Return what is limited, by dimension."""
        limits = {
            JOBS: self.max_concurrent_jobs,
            CORES: self.max_cores,
            MEMORY: self.max_memory,
            GPUS: self.max_gpus,
        }
        return {name: most for name, most in limits.items() if most is not None}


class Limits(BaseModel):
    """What jobs may occupy together; None is no limit. Sizes are bytes.

    Cores, memory, disk, GPUs and the number of jobs count local jobs; licences count
    everywhere. GPUs and licences that are not counted here are not there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_concurrent_jobs: Annotated[Count | None, _OrNone] = None
    max_cores: Annotated[Cores | None, _OrNone] = None
    max_memory: Annotated[Bytes | None, _OrNone] = None
    min_free_disk: Annotated[Bytes | None, _OrNone] = None
    max_cpu_percent: Annotated[Percent | None, _OrNone] = None
    gpus: Count = 0
    licenses: dict[Word, Count] = Field(default_factory=dict)
    queues: dict[Word, QueueLimits] = Field(default_factory=dict)
    targets: dict[Word, TargetLimits] = Field(default_factory=dict)

    @classmethod
    def from_settings(cls, settings: Settings) -> Limits:
        """Return the limits that the settings name."""
        known = type(settings).model_fields
        values = {name: getattr(settings, name) for name in cls.model_fields if name in known}
        if values["gpus"] == "auto":
            raise UsageError("the GPUs are to be counted before limits are made of the settings")
        return cls(**values)

    def changed(self, changes: Mapping[str, Any]) -> Limits:
        """Return these limits with `changes` merged in as JSON Merge Patch does (RFC 7396).

        Names that are not given stay as they are, in `licenses` and `targets` too; None
        takes a limit, or a counter, away. Raises `InvalidInput` naming what was wrong.
        """
        merged = _merged(self.model_dump(), changes)
        if merged.get("gpus", 0) is None:
            merged["gpus"] = 0
        for name in ("licenses", "queues", "targets"):
            if merged.get(name, {}) is None:
                merged[name] = {}
        try:
            return type(self).model_validate(merged)
        except ValidationError as error:
            raise InvalidInput(_sentence(error)) from error

    def to_wire(self) -> dict[str, Any]:
        """Return the shape of ``limits`` on the wire."""
        return self.model_dump()


def _merged(old: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for name, value in changes.items():
        if isinstance(value, Mapping):
            within = merged.get(name)
            inner = _merged(within if isinstance(within, Mapping) else {}, value)
            merged[name] = {key: item for key, item in inner.items() if item is not None}
        else:
            merged[name] = value
    return merged


def _sentence(error: ValidationError) -> str:
    parts = []
    for item in error.errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = ", ".join(Limits.model_fields)
            parts.append(f"there is no limit {place!r}; the limits are {known}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            parts.append(f"limit {place}: {message[:1].lower() + message[1:]}")
    return "; ".join(dict.fromkeys(parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """How this machine stands; sizes are bytes, what is not known is None."""

    cpu_count: int = 1
    memory_total: int = 0
    disk_total: int | None = None
    disk_free: int | None = None
    cpu_percent: float | None = None


def capacity(limits: Limits, host: HostFacts) -> dict[str, int]:
    """Return how much there is of every limited dimension; others are unlimited.

    Of disk it is what may still be promised now, so it moves with the host.
    """
    found: dict[str, int] = {GPUS: limits.gpus}
    if limits.max_concurrent_jobs is not None:
        found[JOBS] = limits.max_concurrent_jobs
    if limits.max_cores is not None:
        found[CORES] = limits.max_cores
    if limits.max_memory is not None:
        found[MEMORY] = limits.max_memory
    if host.disk_free is not None:
        found[DISK] = max(0, host.disk_free - (limits.min_free_disk or 0))
    for name, count in limits.licenses.items():
        found[LICENSE + name] = count
    for name, queue in limits.queues.items():
        for dimension, most in queue.amounts().items():
            found[f"{QUEUE}{dimension}:{name}"] = most
    for name, target in limits.targets.items():
        if target.max_submitted is not None:
            found[SUBMITTED + name] = target.max_submitted
    return found


def closed(limits: Limits, host: HostFacts) -> str | None:
    """Say why no local job at all may start now, for reasons outside of Simyard."""
    free, least = host.disk_free, limits.min_free_disk
    if free is not None and least is not None and free < least:
        return f"waits for free disk: {format_size(free)} free, {format_size(least)} must stay free"
    busy, most = host.cpu_percent, limits.max_cpu_percent
    if busy is not None and most is not None and busy >= most:
        return f"waits for the processor: {busy:.0f} % busy, jobs start below {most:g} %"
    return None


# -- what could never be ---------------------------------------------------------------


def impossible(
    request: ResourceRequest, limits: Limits, host: HostFacts, *, target: str = LOCAL
) -> str | None:
    """Say in plain words why `request` could never be met here, None where it could.

    It does not ask what is free now, only what is there.
    """
    fact = beyond(request, limits, host, target=target)
    return f"{fact}; ask for less, or raise the limit" if fact else None


def beyond(
    request: ResourceRequest, limits: Limits, host: HostFacts, *, target: str = LOCAL
) -> str | None:
    """Say what `request` asks for that is not there, without advice."""
    if target == LOCAL:
        if limits.max_cores is not None and request.cores > limits.max_cores:
            return f"needs {amount(CORES, request.cores)} but the limit is {limits.max_cores}"
        if limits.max_memory is not None and request.memory > limits.max_memory:
            asked, most = format_sizes(request.memory, limits.max_memory)
            return f"needs {asked} of memory but the limit is {most}"
        if request.gpus > limits.gpus:
            there = f"the limit is {limits.gpus}" if limits.gpus else "none are counted here"
            return f"needs {amount(GPUS, request.gpus)} but {there}"
        reserve = limits.min_free_disk or 0
        if host.disk_total and request.disk and request.disk > host.disk_total - reserve:
            asked, there = format_sizes(request.disk, host.disk_total)
            kept = f", of which {format_size(reserve)} must stay free" if reserve else ""
            return f"needs {asked} of disk but the disk has {there}{kept}"
        if isinstance(request, QueuedRequest):
            fact = _beyond_queue(request, limits)
            if fact is not None:
                return fact
    for name, count in request.licenses:
        there_are = limits.licenses.get(name)
        if there_are is None:
            return f"needs {amount(LICENSE + name, count)} but none are counted here"
        if count > there_are:
            return f"needs {amount(LICENSE + name, count)} but the limit is {there_are}"
    return None


def _beyond_queue(request: QueuedRequest, limits: Limits) -> str | None:
    queue = limits.queues.get(request.queue)
    if queue is None:
        return f"is for the queue {request.queue!r}, which there is not here"
    most = queue.amounts()
    for dimension, count in (
        (CORES, request.cores),
        (MEMORY, request.memory),
        (GPUS, request.gpus),
    ):
        if count > most.get(dimension, count):
            limit = most[dimension]
            shown = format_size(limit) if dimension == MEMORY else str(limit)
            return (
                f"needs {amount(dimension, count)} but the limit of the queue "
                f"{request.queue!r} is {shown}"
            )
    return None


def format_sizes(asked: int, there: int) -> tuple[str, str]:
    """Write two sizes so that they do not look alike where they differ."""
    first, second = format_size(asked), format_size(there)
    if first == second and asked != there:
        return f"{asked} bytes", f"{there} bytes"
    return first, second


def amount(dimension: str, count: int) -> str:
    """Write an amount for a person: "2 cores", "3 GiB of memory", "1 licence of hfss"."""
    one = count == 1
    if dimension == CORES:
        return "1 core" if one else f"{count} cores"
    if dimension == GPUS:
        return "1 GPU" if one else f"{count} GPUs"
    if dimension in (MEMORY, DISK):
        return f"{format_size(count)} of {dimension}"
    if dimension.startswith(LICENSE):
        name = dimension.removeprefix(LICENSE)
        return f"1 licence of {name}" if one else f"{count} licences of {name}"
    if dimension.startswith(QUEUE):
        within, _, name = dimension.removeprefix(QUEUE).partition(":")
        return f"{amount(within, count)} of the queue {name!r}"
    if dimension.startswith(SUBMITTED):
        name = dimension.removeprefix(SUBMITTED)
        return f"1 place in {name}" if one else f"{count} places in {name}"
    return "1 job" if one else f"{count} jobs"


# -- what is granted -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one key holds."""

    request: ResourceRequest
    target: str
    gpu_ids: tuple[int, ...]
    needs: Needs
    serial: int
    """Counts the grants of a ledger, in the order in which they were made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What is granted in all. Sizes are bytes."""

    jobs: int = 0
    cores: int = 0
    memory: int = 0
    disk: int = 0
    gpus: int = 0
    licenses: Mapping[str, int] = field(default_factory=dict)
    queues: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def to_wire(self) -> dict[str, Any]:
        """Return the shape of ``in_use`` in ``GET /api/resources``."""
        return {
            "jobs": self.jobs,
            "cores": self.cores,
            "memory": self.memory,
            "disk": self.disk,
            "gpus": self.gpus,
            "licenses": dict(self.licenses),
            "queues": {name: dict(used) for name, used in self.queues.items()},
        }


class Ledger:
    """What is granted to whom. A key is the tag of an attempt, or anything else unique."""

    def __init__(self) -> None:
        self.grants: dict[str, Grant] = {}
        self.amounts: dict[str, int] = {}
        """Granted so far by dimension; what is at zero is not in it."""
        self.serial = 0
        """The serial number that the next grant will get."""
        self._gpus_taken: Counter[int] = Counter()
        """Grants by GPU: after a restart those of a job and of its heir may name the same."""

    def grant(
        self,
        key: str,
        request: ResourceRequest,
        *,
        target: str = LOCAL,
        gpu_ids: Sequence[int] | None = None,
    ) -> Grant:
        """Give `key` what `request` asks for; whether it fits was decided before.

        GPUs are the lowest free ones, or `gpu_ids` where a job that runs already is
        taken up again. Raises `ValueError` where `key` holds a grant already.
        """
        if key in self.grants:
            raise ValueError(f"{key!r} holds a grant already")
        if gpu_ids is None:
            gpu_ids = self._lowest_gpus(request.gpus) if target == LOCAL else ()
        grant = Grant(
            request=request,
            target=target,
            gpu_ids=tuple(gpu_ids),
            needs=needs_of(request, target),
            serial=self.serial,
        )
        self.serial += 1
        self.grants[key] = grant
        self._gpus_taken.update(grant.gpu_ids)
        for dimension, count in grant.needs:
            self.amounts[dimension] = self.amounts.get(dimension, 0) + count
        return grant

    def release(self, key: str) -> Grant | None:
        """Take back what `key` holds; None where it holds nothing (any more)."""
        grant = self.grants.pop(key, None)
        if grant is None:
            return None
        self._gpus_taken.subtract(grant.gpu_ids)
        for dimension, count in grant.needs:
            left = self.amounts[dimension] - count
            if left:
                self.amounts[dimension] = left
            else:
                del self.amounts[dimension]
        return grant

    def transfer(self, old: str, new: str) -> Grant:
        """Let `new` hold what `old` held, the very same GPUs included.

        Raises `KeyError` where `old` holds nothing, `ValueError` where `new` does.
        """
        if new in self.grants:
            raise ValueError(f"{new!r} holds a grant already")
        grant = self.grants.pop(old)
        self.grants[new] = grant
        return grant

    def request_of(self, key: str) -> ResourceRequest:
        """Return what `key` was granted; raises `KeyError`."""
        return self.grants[key].request

    def gpu_ids(self, key: str) -> tuple[int, ...]:
        """Return the GPUs that `key` holds, by number; raises `KeyError`."""
        return self.grants[key].gpu_ids

    @property
    def used(self) -> Used:
        """What is granted in all, now."""
        amounts = self.amounts
        licenses = {
            dimension.removeprefix(LICENSE): count
            for dimension, count in sorted(amounts.items())
            if dimension.startswith(LICENSE)
        }
        queues: dict[str, dict[str, int]] = {}
        for dimension, count in sorted(amounts.items()):
            if dimension.startswith(QUEUE):
                within, _, name = dimension.removeprefix(QUEUE).partition(":")
                queues.setdefault(name, {})[within] = count
        return Used(
            queues=queues,
            jobs=amounts.get(JOBS, 0),
            cores=amounts.get(CORES, 0),
            memory=amounts.get(MEMORY, 0),
            disk=amounts.get(DISK, 0),
            gpus=amounts.get(GPUS, 0),
            licenses=licenses,
        )

    def users(self, dimension: str) -> int:
        """Count the grants that hold some of `dimension`."""
        return sum(
            any(name == dimension for name, _ in grant.needs) for grant in self.grants.values()
        )

    def free(self, limits: Limits, host: HostFacts) -> dict[str, int]:
        """Return what is left of every limited dimension, never less than 0."""
        amounts = self.amounts
        return {
            dimension: max(0, total - amounts.get(dimension, 0))
            for dimension, total in capacity(limits, host).items()
        }

    def fits(
        self, request: ResourceRequest, limits: Limits, host: HostFacts, *, target: str = LOCAL
    ) -> bool:
        """True where `request` could be granted now within `limits`."""
        if target == LOCAL and closed(limits, host) is not None:
            return False
        if beyond(request, limits, host, target=target) is not None:
            return False
        free = self.free(limits, host)
        return all(free.get(name, count) >= count for name, count in needs_of(request, target))

    def _lowest_gpus(self, count: int) -> tuple[int, ...]:
        """With no more than the limit granted, these are always below the limit."""
        found: list[int] = []
        number = 0
        while len(found) < count:
            if self._gpus_taken[number] <= 0:
                found.append(number)
            number += 1
        return tuple(found)
