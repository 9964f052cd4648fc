"""The settings of one service: their names, types, bounds, defaults and where they came from.

A flag beats a ``SIMYARD_*`` variable, that beats ``settings.toml`` in the home, that
beats the default. `docs/reference/settings.md` describes each; a test compares.
It must not know the store, jobs or HTTP.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from ..errors import InvalidInput
from .host import usable_cores, usable_memory
from .model import Bytes, Seconds, Word
from .resources import QueueLimits

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "SIMYARD_"

_STORES = ("postgresql://", "postgres://", "postgresql+psycopg://")
_NO_LIMIT = frozenset({"none", "unlimited", "off"})


def _none_word(value: object) -> object:
    """Read the words for "no limit", which neither TOML nor a variable can say otherwise."""
    if isinstance(value, str) and value.strip().lower() in _NO_LIMIT:
        return None
    return value


def _names(value: object) -> object:
    if isinstance(value, str):
        return tuple(word for word in (part.strip() for part in value.split(",")) if word)
    return value


def _counters(value: object) -> object:
    """Accept "hfss=2,crystal=1" beside a table."""
    if not isinstance(value, str):
        return value
    counters: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in value.split(","))):
        name, equals, count = part.partition("=")
        if not equals:
            raise ValueError("write counters as NAME=COUNT, such as hfss=2,crystal=1")
        counters[name.strip()] = count.strip()
    return counters


def _queues(value: object) -> object:
    """Accept "short:max_cores=4,max_concurrent_jobs=2;long:max_cores=2" beside tables."""
    if not isinstance(value, str):
        return value
    queues: dict[str, object] = {}
    for part in filter(None, (part.strip() for part in value.split(";"))):
        name, colon, limits = part.rpartition(":")
        if not colon:
            raise ValueError("write queues as NAME:LIMIT=N,…;…, such as short:max_cores=4")
        queues[name.strip()] = _counters(limits)
    return queues


Count = Annotated[int, Field(ge=0, le=1_000_000)]
OptionalWord = BeforeValidator(_none_word)


class Settings(BaseModel):
    """Everything that can be set, frozen once the service starts. Sizes are bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address to listen at; loopback by default."
    )
    port: int = Field(
        default=8080,
        ge=0,
        le=65535,
        description="Port to listen at; a free one is taken where it is in use, 0 is any free one.",
    )
    allow_remote: bool = Field(
        default=False,
        description="Listen beyond loopback without TLS. The token then travels in clear text.",
    )
    tls_cert: Path | None = Field(
        default=None, description="Certificate chain (PEM); with tls_key, the service speaks HTTPS."
    )
    tls_key: Path | None = Field(default=None, description="Private key (PEM) of tls_cert.")
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field(
        default=(),
        description="Further host names by which clients may address the service.",
    )
    store: str | None = Field(
        default=None,
        repr=False,  # it may hold a password
        description="Where jobs are remembered: postgresql://USER@HOST/DATABASE, "
        "or else store.db in the home.",
    )
    durability: Literal["default", "full"] = Field(
        default="default",
        description="'full' syncs every change to disk; 'default' syncs submissions.",
    )
    default_scheduler: Word = Field(
        default="local", description="What a job with scheduler 'auto' is given to."
    )
    max_concurrent_jobs: Annotated[Count | None, OptionalWord] = Field(
        default=None, description="Local jobs that may run at a time."
    )
    max_cores: Annotated[Annotated[int, Field(ge=1, le=1_000_000)] | None, OptionalWord] = Field(
        default_factory=usable_cores, description="Cores that local jobs may occupy together."
    )
    max_memory: Annotated[Bytes | None, OptionalWord] = Field(
        default_factory=usable_memory, description="Memory that local jobs may ask for together."
    )
    min_free_disk: Bytes = Field(
        default=1 << 30, description="Free space of the home's disk below which no job starts."
    )
    max_cpu_percent: Annotated[
        Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None, OptionalWord
    ] = Field(default=None, description="Load of the whole host above which no job starts.")
    gpus: Count | Literal["auto"] = Field(
        default=0,
        description="GPUs that local jobs may occupy together; 'auto': those that nvidia-smi or "
        "rocm-smi tells of at the start.",
    )
    licenses: Annotated[dict[Word, Count], BeforeValidator(_counters)] = Field(
        default_factory=dict, description="Licence counters: how many of each name there are."
    )
    queues: Annotated[dict[Word, QueueLimits], BeforeValidator(_queues)] = Field(
        default_factory=dict,
        description="Queues of this machine, each with limits of its own for its jobs together.",
    )
    reserve_after: Seconds = Field(
        default=300.0,
        description="How long the first waiting job is overtaken before room is kept for it.",
    )
    overtake_limit: int = Field(
        default=20,
        ge=1,
        le=1_000_000,
        description="How many jobs may overtake the first waiting one before room is kept for it.",
    )
    grace: Seconds = Field(
        default=10.0,
        description="From the polite signal to the kill, for jobs that do not say it themselves.",
    )
    idle_timeout: Annotated[Seconds | None, OptionalWord] = Field(
        default=None,
        description="How long a service without work and clients lives on; "
        "15 minutes where it was started detached and nothing is set.",
    )
    max_upload: Bytes = Field(
        default=10 << 30,
        description="Largest file that a client elsewhere may send; 0 refuses them all.",
    )
    keep_uploads: Seconds = Field(
        default=86400.0,
        description="How long such a file is kept after no job needed it any longer.",
    )
    keep_events: int = Field(
        default=100_000,
        ge=1000,
        le=100_000_000,
        description="How many events are kept for clients that reconnect.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="How much the service logs."
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="How the service writes its log: lines, or one JSON object each.",
    )
    log_max_bytes: Bytes = Field(
        default=10 << 20,
        description="Size at which run/service.log is put aside, three of them kept; 0: never.",
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("log_level", "log_format", "durability", "gpus", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("store")
    @classmethod
    def _store_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(_STORES):
            # Not repeated: it may hold a password.
            raise ValueError(
                "it is not the URL of a PostgreSQL database; write "
                "postgresql://USER@HOST:PORT/DATABASE, or nothing for a file in the home"
            )
        return value

    @field_validator("tls_cert", "tls_key")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser()

    @field_validator("allowed_hosts")
    @classmethod
    def _host_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not name or any(c in name for c in "/@*?# \t") or name.endswith("."):
                raise ValueError(
                    f"{name!r} is not a host name; write names such as sim.example.org, "
                    "without scheme, path or wildcard"
                )
        return tuple(name.lower() for name in value)

    @model_validator(mode="after")
    def _both_halves(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: give both or neither")
        return self

    @property
    def scheme(self) -> str:
        """``https`` where a certificate is set, else ``http``."""
        return "https" if self.tls_cert is not None else "http"

    def origin(self, name: str) -> str:
        """Say where the value of one setting came from, in words for a person."""
        return self._origins.get(name, "default")

    def origins(self) -> dict[str, str]:
        """Map every setting to where its value came from."""
        return {name: self.origin(name) for name in type(self).model_fields}

    @classmethod
    def load(
        cls,
        home: Path,
        flags: Mapping[str, Any] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """Gather the settings: flag, then variable, then ``<home>/settings.toml``, then default.

        A flag that is None was not given. Raises `InvalidInput` with a sentence that names
        the setting, where it was set, and what to write.
        """
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for layer, wording in (
            (read_file(home / "settings.toml"), str(home / "settings.toml")),
            (read_variables(os.environ if environ is None else environ), "variable"),
            ({k: v for k, v in (flags or {}).items() if v is not None}, "flag"),
        ):
            for name, value in layer.items():
                _known(name, wording)
                values[name] = value
                origins[name] = _origin(name, wording)
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            raise InvalidInput(_sentence(error, origins)) from error
        settings._origins = origins
        return settings


def read_file(path: Path) -> dict[str, Any]:
    """Read a settings file; one that is not there sets nothing.

    Raises `InvalidInput` where it cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the settings file {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"the settings file {path} is not valid TOML: {error}") from error


def read_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Pick the settings out of an environment; empty values and other variables are skipped."""
    found = ((name, environ.get(PREFIX + name.upper(), "")) for name in Settings.model_fields)
    return {name: value for name, value in found if value.strip()}


def _known(name: str, where: str) -> None:
    fields = Settings.model_fields
    if name in fields:
        return
    close = difflib.get_close_matches(name.replace("-", "_").lower(), fields, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the settings are {', '.join(fields)}"
    place = "" if where == "flag" else f" in {where}"
    raise InvalidInput(f"there is no setting {name!r}{place}; {hint}")


def _origin(name: str, wording: str) -> str:
    if wording == "variable":
        return f"variable {PREFIX}{name.upper()}"
    return f"flag --{name.replace('_', '-')}" if wording == "flag" else wording


def _sentence(error: ValidationError, origins: Mapping[str, str]) -> str:
    parts = []
    for item in error.errors(include_url=False, include_context=False):
        message = item["msg"].removeprefix("Value error, ")
        if not item["loc"]:
            parts.append(message)
            continue
        name = str(item["loc"][0])
        inner = ".".join(
            str(part)
            for part in item["loc"][1:]
            if name == "queues" or str(part) in str(item["input"])
        )
        where = f" ({origins[name]})" if name in origins else ""
        parts.append(f"setting {name}{'.' + inner if inner else ''}{where}: {_lowered(message)}")
    return "; ".join(dict.fromkeys(parts))


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:] if message[1:2].islower() else message
