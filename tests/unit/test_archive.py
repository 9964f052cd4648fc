from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from simyard.service import archive
from simyard.service.archive import INCOMPLETE, zip_stream
from simyard.service.job_folder import JobFolder
from simyard.service.model import JobSpec

PLAIN = JobSpec(command=("true",))


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    made = JobFolder(tmp_path, 1)
    made.create(PLAIN)
    return made


def opened(folder: JobFolder, spec: JobSpec = PLAIN) -> zipfile.ZipFile:
    made = zipfile.ZipFile(io.BytesIO(b"".join(zip_stream(folder, spec))))
    assert made.testzip() is None
    return made


def test_an_archive_holds_every_regular_file_and_no_link(folder: JobFolder) -> None:
    work = folder.workdir(PLAIN)
    (work / "sub").mkdir()
    (work / "sub/out.dat").write_bytes(os.urandom(700_000))
    (work / "link").symlink_to("/etc/passwd")
    (work / "dir").symlink_to("/etc")
    os.mkfifo(work / "fifo")
    folder.stdout.write_text("hello")
    made = opened(folder)
    assert sorted(made.namelist()) == ["stdout.log", "work/sub/out.dat"]
    assert made.read("work/sub/out.dat") == (work / "sub/out.dat").read_bytes()
    assert made.read("stdout.log") == b"hello"


def test_the_pieces_stay_small_whatever_the_files_hold(folder: JobFolder) -> None:
    with (folder.workdir(PLAIN) / "noise").open("wb") as file:
        file.write(os.urandom(8 << 20))
    sizes = [len(piece) for piece in zip_stream(folder, PLAIN)]
    assert sum(sizes) > 8 << 20
    assert max(sizes) < 1 << 20


def test_of_a_directory_that_the_spec_names_only_expected_outputs_are_packed(
    tmp_path: Path,
) -> None:
    case = tmp_path / "case"
    case.mkdir()
    for name in ("result.dat", "diary.txt"):
        (case / name).touch()
    spec = JobSpec(
        command=("true",), workdir=str(case), expected_outputs=("*.dat", str(case / "diary.txt"))
    )
    folder = JobFolder(tmp_path, 2)
    folder.create(spec)
    folder.stderr.touch()
    assert sorted(opened(folder, spec).namelist()) == ["stderr.log", "work/result.dat"]


def test_what_is_left_out_is_said(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (folder.workdir(PLAIN) / name).touch()
    monkeypatch.setattr(archive, "MOST_FILES", 2)
    made = opened(folder)
    assert made.namelist() == ["work/a", "work/b", INCOMPLETE]
    assert b"all files after the first 2" in made.read(INCOMPLETE)


def test_a_reader_who_goes_away_leaves_no_file_open(folder: JobFolder) -> None:
    (folder.workdir(PLAIN) / "noise").write_bytes(os.urandom(1 << 20))
    before = len(os.listdir("/proc/self/fd"))
    pieces = zip_stream(folder, PLAIN)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_empty_folder_is_an_empty_archive(tmp_path: Path) -> None:
    assert opened(JobFolder(tmp_path, 9)).namelist() == []
