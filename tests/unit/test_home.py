"""The home folder: private, held by one manager, and refused where it cannot be ours."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from simyard.errors import HomeInUse, InvalidInput, PermissionDenied
from simyard.service.home import Home, ManagerLock, default_path, write_private


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def test_all_folders_are_private_whatever_the_umask_is(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        home = Home(tmp_path / "home")
        home.prepare()
        write_private(home.endpoint, b"{}")
    finally:
        os.umask(old)
    for folder in (home.path, home.run, home.jobs, home.launcher):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.endpoint.stat().st_mode) == 0o600


def test_a_folder_that_others_could_read_is_closed(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    Home(tmp_path / "home").prepare()
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_a_file_in_place_of_the_home_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(InvalidInput, match="choose another --home"):
        Home(tmp_path / "home").prepare()


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can give files away")
def test_the_home_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    os.chown(tmp_path / "home", 12345, 12345)
    with pytest.raises(PermissionDenied, match="another user"):
        Home(tmp_path / "home").prepare()


def test_the_second_manager_is_refused_and_told_who_holds_the_home(home: Home) -> None:
    first, second = ManagerLock(home), ManagerLock(home)
    owner = first.acquire()
    with pytest.raises(HomeInUse, match=f"process {os.getpid()}") as refused:
        second.acquire()
    assert refused.value.details["owner"]["started_at"] == owner["started_at"]
    first.release()
    second.acquire()
    second.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_that_outlives_the_manager_does_not_keep_the_home(home: Home) -> None:
    ready, go = os.pipe(), os.pipe()
    lock = ManagerLock(home)
    lock.acquire()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        lock.let_go_in_child()  # as the death of this process would: closed, nothing tidied
        again = ManagerLock(home)
        again.acquire()
        again.release()
    finally:
        os.write(go[1], b"x")
        os.waitpid(child, 0)
        for descriptor in (*ready, *go):
            os.close(descriptor)


def test_a_home_held_on_another_host_is_refused_with_that_hosts_name(home: Home) -> None:
    (home.run / "manager.lock").write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    with pytest.raises(HomeInUse, match="elsewhere"):
        ManagerLock(home).acquire()


def test_what_a_killed_manager_left_in_the_lock_does_not_stop_the_next(home: Home) -> None:
    lock = ManagerLock(home)
    left = json.dumps(lock.acquire())
    lock.release()
    (home.run / "manager.lock").write_text(left)
    ManagerLock(home).acquire()


def test_an_endpoint_file_of_another_process_is_left_alone(home: Home) -> None:
    home.write_endpoint({"pid": 7})
    home.remove_endpoint(8)
    assert home.endpoint.exists()
    home.remove_endpoint(7)
    assert not home.endpoint.exists()


def test_the_highest_job_folder_is_found_so_that_ids_are_never_used_again(home: Home) -> None:
    assert home.highest_job_folder() == 0
    for job_id in (7, 999, 1000, 2041):
        (home.jobs / str(job_id // 1000) / str(job_id)).mkdir(parents=True)
    assert home.highest_job_folder() == 2041


def test_the_variable_names_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIMYARD_HOME", str(tmp_path / "mine"))
    assert default_path() == tmp_path / "mine"
