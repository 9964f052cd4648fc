"""Where a job's files are put, and where they never are."""

from __future__ import annotations

from pathlib import Path

import pytest

from simyard.errors import InvalidInput, NotFound
from simyard.handler.download import chosen, safe_target

FILES = [
    {"path": "stdout.log", "kind": "file", "size": 1},
    {"path": "work", "kind": "folder", "size": 0},
    {"path": "work/out/a.csv", "kind": "file", "size": 2},
    {"path": "work/out/b.csv", "kind": "file", "size": 2},
    {"path": "work/si.out", "kind": "file", "size": 3},
]


def paths(names: list[str] | None) -> list[str]:
    return [item["path"] for item in chosen(FILES, names)]


def test_all_files_and_no_folders_are_meant_where_nothing_is_named() -> None:
    assert paths(None) == ["stdout.log", "work/out/a.csv", "work/out/b.csv", "work/si.out"]


def test_files_are_named_by_path_by_path_in_the_work_folder_or_by_pattern() -> None:
    assert paths(["stdout.log"]) == ["stdout.log"]
    assert paths(["si.out"]) == ["work/si.out"]
    assert paths(["*.csv", "work/out/a.csv"]) == ["work/out/a.csv", "work/out/b.csv"]


def test_a_name_that_fits_nothing_is_told_with_what_there_is() -> None:
    with pytest.raises(NotFound, match=r"'si\.err'.*stdout\.log"):
        chosen(FILES, ["si.err"])


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "work/..",
        "a\x00b",
        "//x",
        ".",
        "./../x",
    ],
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidInput, match="outside"):
        safe_target(tmp_path, path)


def test_no_symbolic_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    folder, outside = tmp_path / "to", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "work").symlink_to(outside)
    (folder / "x").symlink_to(outside / "x")
    for path in ("work/a", "x"):
        with pytest.raises(InvalidInput, match="symbolic link"):
            safe_target(folder, path)


@pytest.mark.parametrize("path", ["a", "work/b.csv", "..a", "a..b/c", "-rf", "ü/é", "a b"])
def test_ordinary_names_stay_as_they_are(tmp_path: Path, path: str) -> None:
    assert safe_target(tmp_path, path) == tmp_path / path
