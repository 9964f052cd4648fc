"""From command-line options to the spec that is sent; the service checks what it says.

Standard library only: this module is on the submit path. It knows the names of
the fields of a spec and nothing of their rules, which live in the service.
"""

from __future__ import annotations

import argparse
import os
import sys

from ..errors import InvalidInput, UsageError
from .arguments import count, integer, pair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

LARGEST_SCRIPT = 1 << 20
"""Bytes of a script or a job file; what is larger is a mistake, such as a data file."""

_CONDITIONS = ("afterok", "afterany", "afternotok")
_CLUSTER = (
    "nodes",
    "tasks",
    "tasks_per_node",
    "account",
    "qos",
    "reservation",
    "constraint",
    "exclusive",
    "gpu_type",
    "nice",
    "requeue",
    "mail_user",
    "mail_type",
    "comment",
    "extra_args",
)
_PLAIN = (
    "name",
    "setup",
    "cores",
    "memory",
    "disk",
    "gpus",
    "walltime",
    "grace",
    "output_limit",
    "priority",
    "scheduler",
    "queue",
    "hold",
    "retries",
    "expected_outputs",
    "project",
    "group",
)


def add_spec(parser: argparse.ArgumentParser) -> None:
    """Add an option for every part of a spec."""
    what = parser.add_argument_group("what to run")
    what.add_argument(
        "--script", metavar="FILE", help="shell script to run instead of a command; - reads stdin"
    )
    what.add_argument(
        "--file", metavar="FILE", help="job described in YAML; options given here beat it"
    )
    what.add_argument("--name", "-n", help="name shown in lists")
    what.add_argument(
        "--workdir", "-C", metavar="DIR", help="working directory (default: the current one)"
    )
    what.add_argument(
        "--input",
        action="append",
        metavar="FILE[=TARGET]",
        help="copy FILE into the job's own folder, which becomes its working directory; repeatable",
    )
    what.add_argument(
        "--expect",
        dest="expected_outputs",
        action="append",
        metavar="PATH",
        help="file or pattern that must exist at the end; repeatable",
    )

    env = parser.add_argument_group("environment")
    env.add_argument(
        "--env", action="append", type=_variable, metavar="K=V", help="variable to set; repeatable"
    )
    env.add_argument(
        "--export",
        metavar="all|none|NAMES",
        help="which variables of this shell the job sees (default: all on this machine, else none)",
    )
    env.add_argument(
        "--setup",
        action="append",
        metavar="LINE",
        help="shell line run first, such as 'module load …'; repeatable",
    )

    needs = parser.add_argument_group("what it needs")
    needs.add_argument("--cores", "-c", type=count, metavar="N", help="cores (default: 1)")
    needs.add_argument("--memory", "-m", metavar="SIZE", help="memory, such as '4 GiB'")
    needs.add_argument("--disk", metavar="SIZE", help="free disk space, such as 20G")
    needs.add_argument("--gpus", type=count, metavar="N", help="GPUs")
    needs.add_argument(
        "--license",
        dest="licenses",
        action="append",
        type=_license,
        metavar="NAME[=N]",
        help="licences of a named counter; repeatable",
    )

    bounds = parser.add_argument_group("limits")
    bounds.add_argument(
        "--walltime", "-t", metavar="TIME", help="end it after TIME, such as 2h30m or 1-12:00:00"
    )
    bounds.add_argument("--grace", metavar="TIME", help="from the polite signal to the kill")
    bounds.add_argument("--output-limit", metavar="SIZE", help="end it when it has printed more")

    when = parser.add_argument_group("when and how often")
    when.add_argument("--priority", "-p", type=integer, metavar="N", help="higher starts first")
    when.add_argument(
        "--depends-on",
        "-d",
        action="append",
        type=dependencies,
        metavar="[CONDITION:]ID",
        help="start after another job: afterok:17, afterany:17, afternotok:17; repeatable",
    )
    when.add_argument("--hold", action="store_true", default=None, help="wait until released")
    when.add_argument(
        "--retries",
        type=retries,
        metavar="N[:REASON,…]",
        help="try again up to N times, after these reasons only",
    )
    when.add_argument(
        "--retry-delay", metavar="TIME", help="wait so long before the second attempt"
    )
    when.add_argument(
        "--retry-backoff",
        type=float,
        metavar="N",
        help="make each further wait N times as long (default: 2)",
    )
    when.add_argument(
        "--retry-max-delay", metavar="TIME", help="but never longer than this (default: 1h)"
    )

    order = parser.add_argument_group("order")
    order.add_argument("--project", metavar="NAME")
    order.add_argument("--group", metavar="NAME")
    order.add_argument(
        "--tag", dest="tags", action="append", type=_tag, metavar="K=V", help="label; repeatable"
    )

    site = parser.add_argument_group("for a site's scheduler (this machine ignores them)")
    site.add_argument("--scheduler", metavar="NAME", help="where to run it (default: auto)")
    site.add_argument("--queue", "-q", metavar="NAME", help="queue or partition")
    site.add_argument("--nodes", type=count, metavar="N")
    site.add_argument("--tasks", type=count, metavar="N")
    site.add_argument("--tasks-per-node", type=count, metavar="N")
    site.add_argument("--account", metavar="NAME")
    site.add_argument("--qos", metavar="NAME")
    site.add_argument("--reservation", metavar="NAME")
    site.add_argument("--constraint", metavar="TEXT")
    site.add_argument("--exclusive", action="store_true", default=None)
    site.add_argument("--gpu-type", metavar="NAME")
    site.add_argument("--nice", type=integer, metavar="N")
    site.add_argument("--requeue", action="store_true", default=None)
    site.add_argument("--no-requeue", dest="requeue", action="store_false", default=None)
    site.add_argument("--mail-user", metavar="ADDRESS")
    site.add_argument("--mail-type", action="append", metavar="WHEN", help="repeatable")
    site.add_argument("--comment", metavar="TEXT")
    site.add_argument(
        "--scheduler-arg",
        dest="extra_args",
        action="append",
        metavar="ARG",
        help="passed on as it is: --scheduler-arg=--switches=1; repeatable",
    )


def read_texts(options: argparse.Namespace) -> dict[str, str]:
    """Read the script and the job file that were named, once: stdin can be read only once."""
    if options.file == "-" and options.script == "-":
        raise UsageError("--file - and --script - cannot both read stdin")
    texts = {}
    if options.script is not None:
        texts["script"] = read_text(options.script, "--script")
    if options.file is not None:
        texts["yaml"] = read_text(options.file, "--file")
    return texts


def build(
    options: argparse.Namespace, command: Sequence[str], texts: dict[str, str], *, local: bool
) -> dict[str, Any]:
    """Return the body of the submission, but for the environment.

    `local` tells that the service runs on this machine, where paths mean the same to it.
    A job file is sent as text under ``yaml``, with what was given on the command line
    under ``spec`` (which beats it) and what is only assumed under ``defaults`` (which it
    beats). Raises `UsageError`, `InvalidInput`.
    """
    spec = _given(options)
    if command and "script" in texts:
        raise UsageError("give either a command after -- or --script, not both")
    if command:
        spec["command"] = list(command)
    elif "script" in texts:
        spec["script"] = texts["script"]
        if "name" not in spec and options.script != "-" and "yaml" not in texts:
            spec["name"] = os.path.basename(options.script)
    if options.input:
        spec["files"] = [_staged(word, local) for word in options.input]
    defaults: dict[str, Any] = {}
    if options.workdir is not None:
        spec["workdir"] = workdir(options.workdir, local)
    elif local and not options.input:
        defaults["workdir"] = os.getcwd()
    if "yaml" not in texts:
        return {**defaults, **spec}
    return {"yaml": texts["yaml"], "spec": spec, "defaults": defaults}


def _given(options: argparse.Namespace) -> dict[str, Any]:
    spec = {name: getattr(options, name) for name in _PLAIN if getattr(options, name) is not None}
    waits = {
        "delay": options.retry_delay,
        "backoff": options.retry_backoff,
        "max_delay": options.retry_max_delay,
    }
    given = {name: value for name, value in waits.items() if value is not None}
    if given and options.retries is None:
        raise UsageError("--retry-delay and the like need --retries N")
    if given:
        spec["retries"] = {**spec.get("retries", {}), **given}
    cluster = {n: getattr(options, n) for n in _CLUSTER if getattr(options, n) is not None}
    if cluster:
        spec["cluster"] = cluster
    for name in ("env", "licenses", "tags"):
        if getattr(options, name):
            spec[name] = dict(getattr(options, name))
    if options.depends_on:
        spec["depends_on"] = [item for items in options.depends_on for item in items]
    return spec


def workdir(path: str, local: bool) -> str:
    """Return the absolute path of a working directory that was given."""
    if not local:
        return path
    absolute = os.path.abspath(os.path.expanduser(path))
    if not os.path.isdir(absolute):
        raise InvalidInput(f"--workdir {path}: there is no such folder; create it first")
    return absolute


def read_text(path: str, option: str) -> str:
    """Read a script or a job file; raises `InvalidInput` with a sentence that names it."""
    try:
        if path == "-":
            raw = sys.stdin.buffer.read(LARGEST_SCRIPT + 1)
        else:
            with open(os.path.expanduser(path), "rb") as file:
                raw = file.read(LARGEST_SCRIPT + 1)
    except OSError as error:
        raise InvalidInput(f"{option} {path} cannot be read: {_why(error)}") from None
    if len(raw) > LARGEST_SCRIPT:
        raise InvalidInput(f"{option} {path} is larger than 1 MiB; is it the right file?")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{option} {path} is not text in UTF-8; is it the right file?") from None
    if not text.strip():
        raise InvalidInput(f"{option} {path} is empty")
    return text


def _staged(word: str, local: bool) -> dict[str, str]:
    path, target = _source_of(word)
    if not os.path.isfile(path):
        raise InvalidInput(f"--input {word}: there is no such file")
    if not os.access(path, os.R_OK):
        raise InvalidInput(f"--input {word} cannot be read: permission denied")
    if local:
        return {"source": path, "target": target} if target else {"source": path}
    from ..handler.upload import checksum_of

    return {"upload": checksum_of(path), "target": target or os.path.basename(path)}


def to_send(options: argparse.Namespace, body: dict[str, Any]) -> dict[str, str]:
    """Return the uploads that a body made by `build` refers to: checksums and local paths."""
    files = body.get("spec", body).get("files") or ()
    return {
        staged["upload"]: _source_of(word)[0]
        for word, staged in zip(options.input or (), files, strict=False)
        if "upload" in staged
    }


def _source_of(word: str) -> tuple[str, str]:
    """Split FILE[=TARGET] into an absolute path and a target, empty where not given."""
    source, target = word, ""
    if not os.path.exists(os.path.expanduser(word)) and "=" in word:
        source, _, target = word.rpartition("=")
    return os.path.abspath(os.path.expanduser(source)), target


def _why(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    return error.strerror or str(error)


def _variable(text: str) -> tuple[str, str]:
    return pair(text, "a variable", "--env OMP_PROC_BIND=close")


def _tag(text: str) -> tuple[str, str]:
    return pair(text, "a tag", "--tag mesh=fine")


def _license(text: str) -> tuple[str, int]:
    name, equals, number = text.partition("=") if "=" in text else text.partition(":")
    if not name or (equals and not number.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME or NAME=N, such as hfss=2")
    return name, int(number) if equals else 1


def dependencies(text: str) -> list[dict[str, str]]:
    """Read "17", "afterok:17", "afterok:17:18" and lists of those with commas."""
    found = []
    for part in text.split(","):
        words = [word.strip() for word in part.split(":")]
        condition = words.pop(0) if not words[0].isdigit() else "afterok"
        if condition not in _CONDITIONS:
            known = ", ".join(_CONDITIONS)
            raise argparse.ArgumentTypeError(
                f"{text!r}: {condition!r} is no condition; they are {known}"
            )
        if not words or not all(word.isdigit() for word in words):
            raise argparse.ArgumentTypeError(f"{text!r}: write it such as afterok:17")
        found += [{"job": word, "condition": condition} for word in words]
    return found


def retries(text: str) -> dict[str, Any]:
    """Read "3" and "3:timeout,signal"."""
    number, colon, reasons = text.partition(":")
    if not number.isdigit() or (colon and not reasons):
        raise argparse.ArgumentTypeError(f"{text!r}: write it such as 3 or 3:timeout,signal")
    wanted: dict[str, Any] = {"limit": int(number)}
    if colon:
        wanted["on"] = [reason.strip() for reason in reasons.split(",")]
    return wanted
