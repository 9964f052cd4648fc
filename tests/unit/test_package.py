"""The package is what it says: its list of folders, its version, its public names, its text."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from checkout import LAYERS, ROOT, kept_files

import simyard

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_list_of_packages_is_the_list_of_folders() -> None:
    folders = {
        path.parent.relative_to(ROOT).as_posix()
        for layer in LAYERS[1:]
        for path in (ROOT / layer).rglob("*.py")
    }
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    assert listed == {"simyard"} | {"simyard." + folder.replace("/", ".") for folder in folders}


def test_every_folder_with_modules_is_a_regular_package() -> None:
    for name in PROJECT["tool"]["setuptools"]["packages"]:
        folder = ROOT.joinpath(*name.split(".")[1:])
        assert (folder / "__init__.py").is_file(), f"{folder} has no __init__.py"


def test_the_version_is_stated_once_and_the_same() -> None:
    assert simyard.__version__ == PROJECT["project"]["version"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[(Unreleased|{re.escape(simyard.__version__)})\]", changes, re.M)


def test_the_root_is_imported_once_and_as_simyard() -> None:
    names: dict[Path, set[str]] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name != "__main__":
            names.setdefault(Path(file).resolve(), set()).add(name)
    assert names[ROOT / "__init__.py"] == {"simyard"}
    ours = {ROOT / path for path in kept_files()}
    twice = {str(path): found for path, found in names.items() if path in ours and len(found) > 1}
    assert twice == {}


def test_every_public_name_is_there() -> None:
    assert list(simyard.__all__) == sorted(set(simyard.__all__), key=simyard.__all__.index)
    for name in simyard.__all__:
        assert getattr(simyard, name) is not None
    assert set(simyard.__all__) <= set(dir(simyard))


def test_all_is_what_is_public() -> None:
    beside = {"annotations", "TYPE_CHECKING", "Any", *LAYERS}
    public = {name for name in vars(simyard) if not name.startswith("_")} - beside
    assert public <= set(simyard.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = simyard.no_such_name  # type: ignore[attr-defined,unused-ignore]


def undocumented(name: str, item: object) -> list[str]:
    """Name what has no docstring of its own: the item, and its own public methods."""
    if not (inspect.isclass(item) or inspect.isroutine(item)):
        return []
    missing = [] if inspect.getdoc(item) else [name]
    if inspect.isclass(item) and item.__module__.startswith("simyard"):
        for key, value in vars(item).items():
            target = value.fget if isinstance(value, property) else value
            if not key.startswith("_") and inspect.isroutine(target):
                missing += [] if inspect.getdoc(getattr(item, key)) else [f"{name}.{key}"]
    return missing


def test_every_public_name_has_a_docstring() -> None:
    missing = [
        gap
        for name in simyard.__all__
        if not name.startswith("__")
        for gap in undocumented(name, getattr(simyard, name))
    ]
    assert missing == []


def test_every_kept_file_of_the_package_would_be_in_the_wheel() -> None:
    """Data is listed by pattern; a file of a new kind would be left out silently."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    inside: set[Path] = set()
    for package, globs in patterns.items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        for pattern in globs:
            inside |= {path.relative_to(ROOT) for path in folder.glob(pattern)}
    data = [
        path
        for path in kept_files()
        if path.parts[0] in {*LAYERS[1:], "web"} and path.suffix not in {".py", ".md"}
    ]
    assert [str(path) for path in data if path not in inside] == []


# Each is written in two parts, so that this file does not hold what it forbids.
REGISTRIES = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "npm" + "js.org",
    "npm" + "js.com",
    "ana" + "conda.org",
]


def this_machine() -> list[str]:
    """Paths that mean something here only, where they are specific enough to look for."""
    candidates = [str(ROOT), str(Path.home()) + "/", str(Path(sys.prefix))]
    return [text for text in candidates if len(Path(text).parts) > 2 or text == "/ro" + "ot/"]


ELSEWHERE = ["DESIGN" + " §", "DESIGN" + ".md", "STYLE" + ".md"]
"""Texts that are not in the repository, to which nothing in it can point."""


def test_no_file_names_this_machine_a_registry_or_a_text_that_is_not_here() -> None:
    forbidden = [*REGISTRIES, *this_machine(), *ELSEWHERE]
    found = []
    for path in kept_files():
        content = (ROOT / path).read_bytes()
        if b"\0" in content[:4096]:
            continue
        text = content.decode("utf-8", errors="replace")
        found += [f"{path}: {word}" for word in forbidden if word in text]
    assert found == []


def test_every_text_file_is_utf8_and_ends_with_one_line_break() -> None:
    endings = {".py", ".md", ".toml", ".yaml", ".js", ".css", ".html", ".sh"}
    bad = []
    for path in kept_files():
        if path.suffix in endings:
            content = (ROOT / path).read_bytes()
            content.decode("utf-8")
            if b"\r" in content or (content and not content.endswith(b"\n")):
                bad.append(str(path))
    assert bad == []
