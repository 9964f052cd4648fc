from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from simyard.errors import InvalidInput, NotFound, SimyardError, StorageFull
from simyard.service import job_folder
from simyard.service.job_folder import JobFolder
from simyard.service.model import JobSpec


def spec(**fields: Any) -> JobSpec:
    if "script" not in fields:
        fields.setdefault("command", ["true"])
    return JobSpec.model_validate(fields)


PLAIN = spec()


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    made = JobFolder(tmp_path, 12345)
    made.create(PLAIN)
    return made


def run(argv: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=20, check=False)


# -- laying it out ---------------------------------------------------------------------


def test_folders_are_private_and_sorted_by_thousands(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = JobFolder(tmp_path, 12345)
        folder.create(PLAIN)
        folder.stage(spec(files=[{"content": "x", "target": "deep/er/a.txt"}]))
        folder.write_script(spec(script="true"))
    finally:
        os.umask(before)
    assert folder.path == tmp_path / "12" / "12345"
    for path in (folder.path.parent, folder.path, folder.path / "work", folder.path / "work/deep"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (folder.path / "work/deep/er/a.txt", folder.script):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_created_that_is_not_needed(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path, 1)
    folder.create(spec(workdir="/tmp"))
    folder.stage(PLAIN)
    assert folder.write_script(spec(command=["pw.x", "-in", "si.in"])) == ["pw.x", "-in", "si.in"]
    assert list(folder.path.iterdir()) == []
    folder.create(PLAIN)
    folder.create(PLAIN)


def test_a_full_disk_is_said_to_be_full(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(job_folder, "write_private", full)
    with pytest.raises(StorageFull):
        folder.write_script(spec(script="true"))
    with pytest.raises(StorageFull):
        folder.stage(spec(files=[{"content": "x", "target": "a"}]))


# -- staging ---------------------------------------------------------------------------


def test_files_are_copied_and_written_where_they_are_wanted(
    folder: JobFolder, tmp_path: Path
) -> None:
    source = tmp_path / "si.in"
    source.write_text("input")
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    wanted = spec(
        files=[
            str(source),
            {"source": str(source), "target": "in/copy"},
            str(tool),
            {"content": "text é", "target": "b"},
        ]
    )
    folder.stage(wanted)
    folder.stage(wanted)
    work = folder.workdir(PLAIN)
    assert (work / "si.in").read_text() == (work / "in/copy").read_text() == "input"
    assert (work / "b").read_text(encoding="utf-8") == "text é"
    assert os.access(work / "tool", os.X_OK)
    assert sorted(os.listdir(work)) == ["b", "in", "si.in", "tool"]
    (work / "si.in").write_text("changed by the job")
    assert source.read_text() == "input"


def test_a_link_where_a_file_is_to_be_put_is_replaced_not_followed(
    folder: JobFolder, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (folder.workdir(PLAIN) / "a").symlink_to(precious)
    folder.stage(spec(files=[{"content": "x", "target": "a"}]))
    assert precious.read_text() == "keep"
    assert (folder.workdir(PLAIN) / "a").read_text() == "x"


def test_a_file_that_is_there_already_is_left_alone(tmp_path: Path) -> None:
    source = tmp_path / "si.in"
    source.write_text("input")
    JobFolder(tmp_path / "jobs", 1).stage(spec(workdir=str(tmp_path), files=[str(source)]))
    assert source.read_text() == "input"


def test_what_cannot_be_staged_is_named(folder: JobFolder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (folder.workdir(PLAIN) / "taken").mkdir()
    (folder.workdir(PLAIN) / "out").symlink_to(tmp_path)
    cases: list[tuple[object, str]] = [
        ("/no/such/file", "/no/such/file cannot be put"),
        ("relative.txt", "relative.txt is not an absolute path"),
        (str(tmp_path), "is a folder"),
        (str(tmp_path / "fifo"), "is no regular file"),
        ({"content": "x", "target": "taken"}, "there is a folder where the file taken"),
        ({"content": "x", "target": "out/a"}, "leads out of the working directory"),
        ({"content": "x", "target": "x" * 300}, "File name too long"),
    ]
    for file, hint in cases:
        with pytest.raises(InvalidInput) as caught:
            folder.stage(spec(files=[file]))
        assert hint in str(caught.value)
    with pytest.raises(InvalidInput, match="/not/there does not exist; create it first"):
        folder.stage(spec(workdir="/not/there", files=[{"content": "x", "target": "a"}]))


# -- scripts ---------------------------------------------------------------------------


def test_a_script_runs_by_its_first_line_else_by_sh(folder: JobFolder, tmp_path: Path) -> None:
    argv = folder.write_script(spec(script="echo plain $0"))
    assert argv == ["/bin/sh", str(folder.script)]
    assert run(argv, tmp_path).stdout == f"plain {folder.script}\n"
    argv = folder.write_script(spec(script="#!/usr/bin/env python3\nprint('py')"))
    assert run(argv, tmp_path).stdout == "py\n"
    argv = folder.write_script(spec(script="#! /bin/sh -e \nfalse\necho not reached"))
    assert argv == ["/bin/sh", "-e", str(folder.script)]
    assert run(argv, tmp_path).returncode == 1


def test_setup_lines_come_before_a_command_and_its_arguments_stay_whole(
    folder: JobFolder, tmp_path: Path
) -> None:
    command = ["printf", "%s|", "a b", "$HOME", "it's", "", "*", "new\nline"]
    argv = folder.write_script(spec(command=command, setup=["echo first", "export A=1"]))
    assert run(argv, tmp_path).stdout == "first\na b|$HOME|it's||*|new\nline|"
    argv = folder.write_script(spec(command=["sh", "-c", "exit 7"], setup=["A=1"]))
    assert run(argv, tmp_path).returncode == 7


def test_setup_lines_come_before_any_script(folder: JobFolder, tmp_path: Path) -> None:
    setup = ["export A=1"]
    for script in (
        "echo $A",
        "#!/bin/sh\necho $A",
        "#!/usr/bin/env bash\necho $A",
        "#!/usr/bin/env python3\nimport os\nprint(os.environ['A'])",
    ):
        argv = folder.write_script(spec(script=script, setup=setup))
        done = run(argv, tmp_path)
        assert (done.stdout, done.stderr) == ("1\n", "")


# -- listing and opening ---------------------------------------------------------------


def test_files_are_listed_with_their_kinds_and_links_are_not_followed(folder: JobFolder) -> None:
    work = folder.workdir(PLAIN)
    (work / "sub").mkdir()
    (work / "sub/out.dat").write_bytes(b"12345")
    (work / "etc").symlink_to("/etc")
    (work / "loop").symlink_to(".")
    os.mkfifo(work / "fifo")
    folder.stdout.write_bytes(b"x")
    infos, truncated = folder.files(PLAIN)
    assert not truncated
    assert [(info.path, info.kind, info.size) for info in infos] == [
        ("stdout.log", "file", 1),
        ("work", "folder", 0),
        ("work/etc", "link", 0),
        ("work/fifo", "other", 0),
        ("work/loop", "link", 0),
        ("work/sub", "folder", 0),
        ("work/sub/out.dat", "file", 5),
    ]


def test_a_listing_is_bounded(folder: JobFolder) -> None:
    for number in range(30):
        (folder.workdir(PLAIN) / f"{number:03}").touch()
    infos, truncated = folder.files(PLAIN, limit=10)
    assert len(infos) == 10
    assert truncated
    assert not folder.files(PLAIN, limit=31)[1]


def test_work_names_the_directory_of_the_spec(tmp_path: Path) -> None:
    workdir = tmp_path / "case"
    workdir.mkdir()
    (workdir / "out.dat").write_bytes(b"data")
    own = spec(workdir=str(workdir))
    folder = JobFolder(tmp_path / "jobs", 3)
    (tmp_path / "jobs").mkdir()
    folder.create(own)
    folder.stdout.write_bytes(b"x")
    assert [info.path for info in folder.files(own)[0]] == ["stdout.log", "work/out.dat"]
    with folder.open_file(own, "work/out.dat").file as file:
        assert file.read() == b"data"


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path, 5)
    assert folder.files(PLAIN) == ([], False)
    with pytest.raises(NotFound, match=r"there is no file 'stdout\.log'"):
        folder.open_file(PLAIN, "stdout.log")
    folder.remove()


def test_a_regular_file_is_opened(folder: JobFolder) -> None:
    (folder.workdir(PLAIN) / "a b").write_bytes(b"hello")
    opened = folder.open_file(PLAIN, "work/a b")
    with opened.file as file:
        assert (file.read(), opened.size) == (b"hello", 5)


@pytest.mark.parametrize(
    "path",
    [
        "../12346/stdout.log", "..", "work/../../x", "/etc/passwd", "//etc/passwd", "work//a",
        "./stdout.log", "a\x00b", "", "/", "work", "no/such", "stdout.log/x", "x" * 300,
        "x/" * 3000, "work/link", "work/dir/passwd", "work/fifo", "work/socket", "..%2f", "..\\x",
        "work/proc",
    ],
)  # fmt: skip
def test_no_path_leads_out_or_hangs(folder: JobFolder, path: str) -> None:
    work = folder.workdir(PLAIN)
    (work / "link").symlink_to("/etc/passwd")
    (work / "dir").symlink_to("/etc")
    (work / "proc").symlink_to("/proc/self/environ")
    os.mkfifo(work / "fifo")
    folder.stdout.write_bytes(b"x")
    open_before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    with pytest.raises((NotFound, InvalidInput)):
        folder.open_file(PLAIN, path)
    if open_before:
        assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_work_folder_that_the_job_made_a_link_is_not_followed(folder: JobFolder) -> None:
    work = folder.workdir(PLAIN)
    work.rmdir()
    work.symlink_to("/etc")
    with pytest.raises(NotFound):
        folder.open_file(PLAIN, "work/passwd")
    assert [(info.path, info.kind) for info in folder.files(PLAIN)[0]] == [("work", "link")]


# -- outputs ---------------------------------------------------------------------------


def test_expected_outputs_are_found_or_missed(folder: JobFolder) -> None:
    work = folder.workdir(PLAIN)
    (work / "deep/er").mkdir(parents=True)
    for name in ("a.out", "b.out", "deep/er/c.h5", "odd[1].txt"):
        (work / name).touch()
    wanted = spec(
        expected_outputs=["*.out", "**/*.h5", "odd[1].txt", "deep", "missing.dat", "*.none"]
    )
    found, missing = folder.expected_outputs(wanted)
    assert found == ["a.out", "b.out", "deep/er/c.h5", "odd[1].txt", "deep"]
    assert missing == ["missing.dat", "*.none"]
    assert folder.expected_outputs(PLAIN) == ([], [])


# -- usage -----------------------------------------------------------------------------


def line(t: float, rss: int = 1) -> str:
    return json.dumps({"t": t, "cpu": t / 2, "rss": rss, "procs": 1}) + "\n"


def test_usage_is_thinned_and_keeps_the_peak_and_the_end(folder: JobFolder) -> None:
    folder.usage.write_text("".join(line(t, rss=999 if t == 777 else t % 7) for t in range(1000)))
    samples = folder.read_usage(most=50)
    assert len(samples) == 50
    assert max(sample["rss"] for sample in samples) == 999
    assert samples[-1]["t"] == 999
    assert [s["t"] for s in samples] == sorted(s["t"] for s in samples)
    assert len(folder.read_usage(most=5000)) == 1000


def test_usage_is_that_of_the_last_attempt_and_torn_lines_are_skipped(folder: JobFolder) -> None:
    folder.usage.write_text(line(1) + line(2) + "{}\nnull\n[1]\n" + line(0.5) + '{"t": 3, "cp')
    assert [sample["t"] for sample in folder.read_usage()] == [0.5]
    folder.usage.unlink()
    assert folder.read_usage() == []


# -- removal ---------------------------------------------------------------------------


def test_a_folder_is_removed_with_all_that_is_in_it_and_nothing_else(
    folder: JobFolder, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    work = folder.workdir(PLAIN)
    (work / "link").symlink_to(precious)
    (work / "locked").mkdir()
    (work / "locked/file").touch()
    (work / "locked").chmod(0o500)
    folder.remove()
    folder.remove()
    assert not folder.path.exists()
    assert (precious / "file").exists()


def test_errors_are_all_ours(folder: JobFolder) -> None:
    with pytest.raises(SimyardError):
        folder.open_file(PLAIN, "nothing")
