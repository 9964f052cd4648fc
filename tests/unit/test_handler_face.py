"""The faces agree: synchronous with asynchronous, keyword arguments with the model."""

from __future__ import annotations

import inspect
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import simyard
from simyard.errors import InvalidInput, UsageError
from simyard.handler.job_handle import AsyncJobHandle, JobHandle, as_html
from simyard.handler.job_manager import JobManager, as_flags
from simyard.handler.job_manager_handler import JobManagerHandler
from simyard.handler.spec_fields import SpecFields, as_spec
from simyard.service.model import JobSpec

PAIRS = [(JobManagerHandler, JobManager), (JobHandle, AsyncJobHandle)]
ONLY_ASYNC = {"client", "leaves_by_itself"}


def public(kind: type) -> dict[str, Any]:
    return {
        name: member
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def shape(function: Any) -> list[tuple[str, Any, Any]]:
    parameters = inspect.signature(function).parameters.values()
    return [(item.name, item.kind, item.default) for item in parameters]


@pytest.mark.parametrize(("sync", "native"), PAIRS)
def test_both_faces_have_the_same_methods(sync: type, native: type) -> None:
    assert set(public(native)) - ONLY_ASYNC == set(public(sync))


@pytest.mark.parametrize(
    ("sync", "native", "name"),
    [
        (sync, native, name)
        for sync, native in PAIRS
        for name in sorted({*public(sync), "__init__"})
        if name != "__init__" or sync is JobManagerHandler
    ],
)
def test_both_faces_have_the_same_signatures(sync: type, native: type, name: str) -> None:
    assert shape(getattr(sync, name)) == shape(getattr(native, name))


@pytest.mark.parametrize(("sync", "native"), PAIRS)
def test_every_native_method_that_asks_is_asynchronous(sync: type, native: type) -> None:
    for name, function in public(native).items():
        asks = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        assert asks or name == "at_exit", name
        assert not inspect.iscoroutinefunction(public(sync).get(name)), name


def test_the_keyword_arguments_are_the_fields_of_the_model() -> None:
    assert set(SpecFields.__annotations__) == set(JobSpec.model_fields) - {"command"}


def test_making_a_handler_costs_nothing_and_starts_nothing() -> None:
    code = (
        "import sys, threading, simyard\n"
        "handler = simyard.JobManagerHandler('/nonexistent/home')\n"
        "assert threading.active_count() == 1\n"
        "heavy = {'pydantic', 'sqlalchemy', 'alembic', 'rich', 'simyard.service.server'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "handler.close(); handler.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_importing_simyard_is_light_and_a_name_brings_only_what_it_needs() -> None:
    code = (
        "import sys, simyard\n"
        "heavy = {'aiohttp', 'pydantic', 'sqlalchemy', 'asyncio', 'typing_extensions'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "simyard.NotFound; assert not heavy & set(sys.modules)\n"
        "simyard.JobSpec; assert 'aiohttp' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_closed_handler_says_so(tmp_path: Path) -> None:
    handler = JobManagerHandler(tmp_path / "home")
    handler.close()
    with pytest.raises(UsageError, match="closed"):
        handler.jobs()
    assert not (tmp_path / "home").exists()


def test_a_wrong_on_close_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="handover"):
        JobManagerHandler(tmp_path, on_close="stop")  # type: ignore[arg-type]


# -- what can be submitted -----------------------------------------------------------------


def test_a_command_a_spec_and_its_fields_mean_the_same() -> None:
    wanted = {"command": ["pw.x", "-in", "si.in"], "cores": 2}
    assert as_spec(["pw.x", "-in", "si.in"], {"cores": 2}) == wanted
    assert as_spec(("pw.x", Path("-in"), "si.in"), {"cores": 2, "name": None}) == wanted
    assert as_spec(wanted) == wanted
    assert as_spec(JobSpec(command=["pw.x", "-in", "si.in"], cores=2)) == wanted  # type: ignore[arg-type]
    assert as_spec(None, {"script": "true"}) == {"script": "true"}


def test_keyword_arguments_beat_the_spec() -> None:
    spec = JobSpec(script="true", priority=1)
    assert as_spec(spec, {"priority": 5})["priority"] == 5


def test_what_json_has_no_word_for_is_translated() -> None:
    fields = {"walltime": timedelta(minutes=2), "workdir": Path("/x"), "tags": {"a": "b"}}
    spec = as_spec(["true", 3, 0.5], fields)
    assert spec == {
        "command": ["true", "3", "0.5"],
        "walltime": 120.0,
        "workdir": "/x",
        "tags": {"a": "b"},
    }


def test_a_handle_can_be_depended_on() -> None:
    handle = AsyncJobHandle(None, {"id": "17"})  # type: ignore[arg-type]
    assert as_spec(["true"], {"depends_on": [handle]})["depends_on"] == ["17"]


@pytest.mark.parametrize(
    ("work", "fields", "says"),
    [
        ("pw.x -in si.in", {}, "is a list"),
        (["true"], {"memmory": 1}, "did you mean 'memory'"),
        (["true"], {"xyzzy": 1}, "the fields are"),
        ([["true"]], {}, "neither text"),
        (17, {}, "cannot be submitted"),
    ],
)
def test_the_usual_mistakes_each_get_a_sentence(
    work: Any, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        as_spec(work, fields)


def test_settings_become_the_options_of_serve() -> None:
    settings = {
        "max_cores": 4,
        "licenses": {"hfss": 2, "crystal": 1},
        "allowed_hosts": ("a", "b"),
        "allow_remote": True,
        "tls": False,
    }
    assert as_flags(settings) == [
        "--max-cores=4",
        "--licenses=hfss=2,crystal=1",
        "--allowed-hosts=a,b",
        "--allow-remote",
    ]


def test_a_notebook_shows_a_job_and_runs_nothing_of_it() -> None:
    hostile = "<img src=x onerror=alert(1)>"
    job = {
        "id": "17",
        "name": hostile,
        "state": "queued",
        "pending_reason": hostile,
        "outcome": {"reason": "start_failed", "message": hostile},
        "workdir": f"/tmp/{hostile}",
    }
    shown = as_html(job)
    assert "<img" not in shown
    assert shown.count("&lt;img src=x") == 4
    handle = AsyncJobHandle(None, job)  # type: ignore[arg-type]
    assert handle._repr_html_() == shown


def test_the_public_names_lead_to_the_real_things() -> None:
    assert simyard.JobManagerHandler is JobManagerHandler
    assert simyard.JobManager is JobManager
    assert simyard.JobSpec is JobSpec
    assert simyard.WaitTimeout.__module__ == "simyard.errors"
