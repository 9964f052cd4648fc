"""Rules for the dashboard's own files: no way to markup, nothing inline, nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

WEB = Path(__file__).parents[2] / "web"
SCRIPTS = sorted((WEB / "app").glob("*.js"))
DANGERS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|"
    r"createContextualFragment|srcdoc|DOMParser|setAttribute\(\s*[\"'](?:style|on)|localStorage|document\.cookie"
)


def _files(*endings: str) -> Iterator[Path]:
    for path in sorted(WEB.rglob("*")):
        if path.suffix in endings:
            yield path


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_from_text(path: Path) -> None:
    found = DANGERS.search(path.read_text(encoding="utf-8"))
    assert found is None, f"{path.name} uses {found[0]}" if found else ""


def test_the_page_has_nothing_inline() -> None:
    page = (WEB / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page)
    assert re.findall(r"<script(?![^>]*\ssrc=)", page) == []


def test_nothing_comes_from_the_network() -> None:
    names = {"http://www.w3.org/2000/svg"}
    for path in _files(".js", ".css", ".html", ".svg"):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"')]*", text)) <= names, (
            path
        )


def test_every_file_that_is_named_exists() -> None:
    for path in _files(".js", ".css", ".html"):
        for name in re.findall(
            r"[\"'(](/(?:app|icons)/[\w.-]+|/style\.css)[\"')]", path.read_text()
        ):
            assert (WEB / name[1:]).is_file(), f"{path.name} names {name}"
        for name in re.findall(r"from \"\./([\w.-]+)\"", path.read_text()):
            assert (WEB / "app" / name).is_file(), f"{path.name} imports {name}"


def test_every_icon_is_used_and_holds_drawings_only() -> None:
    used = "".join(path.read_text() for path in _files(".js", ".css", ".html"))
    for path in _files(".svg"):
        assert f"/icons/{path.name}" in used, f"{path.name} is used nowhere"
        for element in ET.parse(path).iter():
            assert element.tag.rpartition("}")[2] in {
                "svg",
                "g",
                "path",
                "rect",
                "circle",
                "ellipse",
            }
