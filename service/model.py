"""What a job is: what was asked, what state it is in, how it ended.

Pure: no clock, no loop, no database. `JobSpec` is what people write (in Python,
JSON or YAML); it refuses unknown fields and checks every bound. `Job` is what
the store knows of one job. The state machine is in `states`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from ..scheduler_adapters.contract import ResourceRequest
from .quantities import parse_duration, parse_size
from .states import JobState

NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,200}\Z")
WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+:@/-]{0,99}\Z")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

Bytes = Annotated[
    int, BeforeValidator(parse_size, json_schema_input_type=int | str), Field(ge=0, le=1 << 60)
]
Seconds = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=float | str),
    Field(gt=0, le=10 * 365 * 86400),
]

Pause = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=float | str),
    Field(ge=0, le=30 * 86400),
]


def _printable(text: str) -> str:
    if not NAME.match(text):
        raise ValueError("must be 1 to 200 characters without control characters or line breaks")
    return text


def _word(text: str) -> str:
    if not WORD.match(text):
        raise ValueError(
            "must be 1 to 100 letters, digits or _ . + : @ / - and begin with a letter or digit"
        )
    return text


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain a NUL character")
    return text


Printable = Annotated[str, AfterValidator(_printable)]
Word = Annotated[str, AfterValidator(_word)]
Text = Annotated[str, AfterValidator(_no_nul)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, hexadecimal.")]


class OutcomeReason(str, Enum):
    """Why a job is in its terminal state."""

    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_LIMIT = "output_limit"
    OUTPUTS_MISSING = "outputs_missing"
    START_FAILED = "start_failed"
    NODE_FAILURE = "node_failure"
    SUBMIT_REJECTED = "submit_rejected"
    DEPENDENCY_FAILED = "dependency_failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    LOST = "lost"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRequest(ResourceRequest):
    """What one attempt occupies while it runs, counted in a queue of this machine too."""

    queue: str


class Dependency(_Strict):
    """Wait for another job: until it completed, ended in any way, or did not complete."""

    job: str = Field(min_length=1, max_length=40)
    condition: Literal["afterok", "afterany", "afternotok"] = "afterok"


class Retries(_Strict):
    """Try again by itself: how many times, after which reasons, and how long it waits before."""

    limit: int = Field(default=0, ge=0, le=100)
    on: tuple[OutcomeReason, ...] = (
        OutcomeReason.EXIT_CODE,
        OutcomeReason.SIGNAL,
        OutcomeReason.NODE_FAILURE,
        OutcomeReason.INTERRUPTED,
    )
    delay: Pause = Field(default=0.0, description="Wait so long before the second attempt.")
    backoff: float = Field(
        default=2.0,
        ge=1,
        le=100,
        allow_inf_nan=False,
        description="Each further wait is so many times as long as the one before.",
    )
    max_delay: Pause = Field(default=3600.0, description="But never longer than this.")


class StagedFile(_Strict):
    """A file to put into the job's folder before it starts: from this host, sent ahead, or as text."""

    source: Text | None = None
    content: Text | None = None
    upload: Digest | None = None
    """SHA-256 of a file that was sent with ``PUT /api/uploads/{sha256}`` before."""
    target: Text | None = None
    """Path inside the work directory; the source's own name where not given."""

    @model_validator(mode="after")
    def _one_origin(self) -> StagedFile:
        if [self.source, self.content, self.upload].count(None) != 2:
            raise ValueError(
                "give one of 'source' (a path), 'content' (the text itself) and 'upload' (the "
                "SHA-256 of a file that was sent before)"
            )
        if self.source is None and self.target is None:
            kind = "upload" if self.content is None else "content"
            raise ValueError(f"a file given as '{kind}' needs a 'target' name")
        target = PurePosixPath(self.target if self.target is not None else self.name)
        if target.is_absolute() or ".." in target.parts or target.name in ("", "."):
            raise ValueError("'target' must be a path inside the job's folder")
        return self

    @property
    def name(self) -> str:
        """Where it goes, relative to the work directory."""
        if self.target is not None:
            return self.target
        return PurePosixPath(str(self.source).replace("\\", "/")).name


class ClusterOptions(_Strict):
    """What only a site's scheduler understands; the local machine ignores it."""

    nodes: int | None = Field(default=None, ge=1, le=100_000)
    tasks: int | None = Field(default=None, ge=1, le=10_000_000)
    tasks_per_node: int | None = Field(default=None, ge=1, le=100_000)
    account: Word | None = None
    qos: Word | None = None
    reservation: Word | None = None
    constraint: Printable | None = None
    exclusive: bool = False
    gpu_type: Word | None = None
    nice: int | None = Field(default=None, ge=-10_000, le=10_000)
    requeue: bool | None = None
    mail_user: Printable | None = None
    mail_type: tuple[Word, ...] = ()
    comment: Printable | None = None
    extra_args: tuple[Text, ...] = ()


def _as_word(value: object) -> object:
    """Accept numbers and paths where a text is wanted, as people write commands."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _as_dependencies(value: object) -> object:
    """Accept "17", ["17", {"job": "18", "condition": "afterany"}] and "afterany:17"."""
    if value is None:
        return ()
    if isinstance(value, (str, int, Mapping, Dependency)) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, (list, tuple)):
        return value
    return tuple(_as_dependency(item) for item in value)


def _as_dependency(item: object) -> object:
    if isinstance(item, int) and not isinstance(item, bool):
        return {"job": str(item)}
    if isinstance(item, str):
        condition, colon, job = item.partition(":")
        return {"job": job, "condition": condition} if colon else {"job": item}
    return item


class JobSpec(_Strict):
    """What is asked: one unit of work and what it needs."""

    command: tuple[Text, ...] | None = Field(
        default=None, min_length=1, max_length=10_000, description="Program and arguments."
    )
    script: Text | None = Field(
        default=None, max_length=1 << 20, description="Shell text, run by /bin/sh or its '#!' line."
    )
    name: Printable | None = None
    workdir: Text | None = Field(
        default=None, description="Absolute path; the job's own 'work' folder where not given."
    )
    files: tuple[StagedFile, ...] = Field(default=(), max_length=10_000)
    env: dict[str, Text] = Field(
        default_factory=dict, description="Variables on top of the environment."
    )
    base_env: dict[str, Text] | None = Field(
        default=None,
        repr=False,
        description="The caller's captured environment; a minimal one where not given.",
    )
    soft_limits: dict[str, int] = Field(
        default_factory=dict, description="The caller's soft limits, such as 'stack'."
    )
    setup: tuple[Text, ...] = Field(
        default=(), max_length=1000, description="Shell lines run first, such as 'module load …'."
    )

    cores: int = Field(default=1, ge=1, le=1_000_000)
    memory: Bytes = Field(default=0, description="Bytes, or as people write them: '4 GiB'.")
    disk: Bytes = 0
    gpus: int = Field(default=0, ge=0, le=10_000)
    licenses: dict[Word, Annotated[int, Field(ge=1, le=1_000_000)]] = Field(default_factory=dict)
    walltime: Seconds | None = Field(
        default=None, description="Seconds, or as people write them: '2h30m', '1-12:00:00'."
    )
    grace: Seconds | None = Field(
        default=None,
        description="From the polite signal to the kill; the service's setting where not given.",
    )
    output_limit: Bytes | None = Field(default=None, description="End the job beyond it.")

    priority: int = Field(default=0, ge=-1_000_000, le=1_000_000)
    scheduler: Word = "auto"
    queue: Word | None = None
    cluster: ClusterOptions = ClusterOptions()
    depends_on: Annotated[
        tuple[Dependency, ...], BeforeValidator(_as_dependencies), Field(max_length=1000)
    ] = ()
    hold: bool = False
    retries: Retries = Retries()
    expected_outputs: tuple[Text, ...] = Field(
        default=(),
        max_length=1000,
        description="Paths or patterns that must exist in the work directory at the end.",
    )
    project: Word | None = None
    group: Word | None = None
    tags: dict[Word, Printable] = Field(default_factory=dict)

    @field_validator("retries", mode="before")
    @classmethod
    def _count_of_retries(cls, value: object) -> object:
        return {"limit": value} if isinstance(value, (int, str)) else value

    @field_validator("env", "base_env", "tags", mode="before")
    @classmethod
    def _values_as_words(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return {name: _as_word(item) for name, item in value.items()}
        return value

    @field_validator("command", mode="before")
    @classmethod
    def _command_is_a_list(cls, value: object) -> object:
        if isinstance(value, (list, tuple)):
            return tuple(_as_word(item) for item in value)
        if isinstance(value, str):
            raise ValueError(
                'must be a list, such as ["pw.x", "-in", "si.in"]; put shell text into \'script\''
            )
        return value

    @field_validator("files", mode="before")
    @classmethod
    def _paths_are_files(cls, value: object) -> object:
        if isinstance(value, (list, tuple)):
            return [{"source": item} if isinstance(item, str) else item for item in value]
        return value

    @field_validator("env", "base_env")
    @classmethod
    def _variable_names(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for name in value or ():
            if not VARIABLE.match(name):
                raise ValueError(f"{name!r} is not the name of an environment variable")
        return value

    @field_validator("workdir")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("/") and value[1:2] != ":":
            raise ValueError("must be an absolute path")
        return value

    @field_validator("setup")
    @classmethod
    def _single_lines(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any("\n" in line for line in value):
            raise ValueError("each entry must be a single line; use 'script' for more")
        return value

    @model_validator(mode="after")
    def _command_or_script(self) -> JobSpec:
        if (self.command is None) == (self.script is None):
            raise ValueError("give either 'command' (a list) or 'script' (shell text)")
        if self.command is not None and not self.command[0]:
            raise ValueError("'command' begins with an empty program name")
        if self.script is not None and not self.script.strip():
            raise ValueError("'script' is empty")
        return self

    @property
    def title(self) -> str:
        """What lists show: the name, else the program, else 'script'."""
        if self.name:
            return self.name
        if self.command:
            base = self.command[0].rstrip("/").rpartition("/")[2] or self.command[0]
            return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "?", base)[:200]
        return "script"

    def uploads(self) -> tuple[str, ...]:
        """Return the uploads that the job needs before it can start."""
        if not self.files:
            return ()
        return tuple(dict.fromkeys(file.upload for file in self.files if file.upload is not None))

    def resource_request(self) -> ResourceRequest:
        """What the job occupies while it runs."""
        if self.queue is not None:
            return QueuedRequest(
                queue=self.queue,
                cores=self.cores,
                memory=self.memory,
                disk=self.disk,
                gpus=self.gpus,
                licenses=tuple(sorted(self.licenses.items())),
            )
        return ResourceRequest(
            cores=self.cores,
            memory=self.memory,
            disk=self.disk,
            gpus=self.gpus,
            licenses=tuple(sorted(self.licenses.items())),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended."""

    reason: OutcomeReason
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row of the store: everything durable about one job but its spec's text.

    Times are seconds since the epoch (UTC).
    """

    id: int
    state: JobState
    version: int
    """Counts the changes; each update names the version it replaces."""
    spec_json: str
    """The spec as accepted, without `base_env`."""
    name: str
    priority: int
    scheduler: str
    project: str | None = None
    group: str | None = None
    attempt: int = 0
    tag: str | None = None
    native_id: str | None = None
    gpu_ids: tuple[int, ...] = ()
    """GPUs of the present or last attempt, by number."""
    outcome: Outcome | None = None
    cancel_requested: bool = False
    retry_of: int | None = None
    environment: str | None = None
    """Hash of the captured environment, kept once for all jobs that share it."""
    host: str | None = None
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    max_rss_bytes: int = 0
    created_at: float
    queued_at: float | None = None
    """Since when it waits for its turn; in the future where its next attempt has to wait till then."""
    started_at: float | None = None
    finished_at: float | None = None

    def evolve(self, **changes: Any) -> Job:
        """Return a copy with `changes` applied and the next version."""
        return replace(self, version=self.version + 1, **changes)

    def without_spec(self) -> Job:
        """Return a copy without the spec's text, as live jobs are held in memory."""
        return replace(self, spec_json="")

    def with_spec_of(self, earlier: Job) -> Job:
        """Return this job, with the spec's text of an earlier version where it has none."""
        return self if self.spec_json else replace(self, spec_json=earlier.spec_json)

    def spec(self) -> JobSpec:
        """Parse the spec again; `base_env` is not part of it."""
        return JobSpec.model_validate_json(self.spec_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the append-only, numbered history."""

    seq: int
    time: float
    type: str
    job_id: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
