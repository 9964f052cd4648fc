"""What is written is true: code blocks run, links lead somewhere, names are explained.

A fenced block says after its language what it is:

    ```python run            one program per page: these blocks are joined and run as a whole
    ```sh run                a script of its own, under `bash -euo pipefail`
    ```text output           lines that the block before printed; … stands for anything
    ```yaml file=job.yaml    is put into the folder in which the page's blocks run
    ```sh not run: REASON    for a reader only

Python and shell blocks carry one of these; JSON, TOML and YAML blocks are parsed. Each page
has a folder and a home of its own, and leaves nothing running.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from checkout import ROOT, kept_files

import simyard
from simyard.errors import by_code

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGES = [path for path in kept_files() if path.suffix == ".md"]
RUNNABLE = {"python", "sh"}
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`\n]*)$")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    word: str
    text: str

    @property
    def runs(self) -> bool:
        return self.word == "run" and self.language in RUNNABLE

    @property
    def is_output(self) -> bool:
        return self.language == "text" and self.word == "output"

    @property
    def file(self) -> str | None:
        return self.word[5:] if self.word.startswith("file=") else None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page in order."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    start: tuple[int, str] | None = None
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if fence is None:
            continue
        if start is None:
            start = (number, fence["info"].strip())
        else:
            language, _, word = start[1].partition(" ")
            text = textwrap.dedent("\n".join(lines[start[0] : number - 1])) + "\n"
            yield Block(page, start[0], language, word.strip(), text)
            start = None
    assert start is None, f"{page}:{start and start[0]}: this block has no end"


BLOCKS = {page: list(blocks(page)) for page in PAGES}
ALL = [block for found in BLOCKS.values() for block in found]


def test_every_code_block_runs_or_says_why_not() -> None:
    silent = [
        str(block)
        for block in ALL
        if block.language in RUNNABLE | {"bash", "shell", "console", "py", ""}
        and not block.runs
        and block.file is None
        and not re.fullmatch(r"not run: \S.{9,}", block.word)
    ]
    assert silent == []


def test_data_in_blocks_can_be_read() -> None:
    readers: dict[str, Callable[[str], object]] = {
        "json": json.loads,
        "toml": tomllib.loads,
        "yaml": yaml.safe_load,
    }
    for block in ALL:
        if block.language in readers:
            try:
                readers[block.language](block.text)
            except ValueError as error:
                pytest.fail(f"{block}: {error}")


def python_program(page: Path) -> str:
    """Return the page's Python blocks as one program whose line numbers are the page's."""
    lines: list[str] = []
    for block in BLOCKS[page]:
        if block.runs and block.language == "python":
            lines += [""] * (block.line - len(lines)) + block.text.splitlines()
    return "\n".join(lines) + "\n"


def world(folder: Path) -> dict[str, str]:
    """Return the environment of a page: a home of its own, our programs on PATH."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SIMYARD_HOME": str(folder / "home"),
        "SIMYARD_LAUNCHER_IDLE": "1",
        "SIMYARD_PORT": "0",
        "NO_COLOR": "1",
    }


def run(words: list[str], folder: Path, what: str) -> str:
    done = subprocess.run(
        words, cwd=folder / "here", env=world(folder), capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, f"{what} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def prints(expected: str, output: str) -> bool:
    """Tell whether the expected lines are in the output, in this order."""
    pattern = r"\n(?:.*\n)*?".join(
        ".*?".join(map(re.escape, line.strip().split("…"))) + r"[ \t]*"
        for line in expected.strip().splitlines()
    )
    unindented = "\n".join(line.strip() for line in output.splitlines()) + "\n"
    return re.search(rf"^{pattern}$", unindented, re.M) is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.runs for block in BLOCKS[page])], ids=str
)
def test_the_code_blocks_of_this_page_run(page: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for block in BLOCKS[page]:
        if block.file is not None:
            (here / block.file).write_text(block.text, encoding="utf-8")
    output, python_ran = "", False
    try:
        for block in BLOCKS[page]:
            if block.is_output:
                assert prints(block.text, output), f"{block}: this was printed:\n{output}"
            elif block.runs and block.language == "sh":
                output = run(["bash", "-euo", "pipefail", "-c", block.text], tmp_path, str(block))
            elif block.runs and not python_ran:
                program = tmp_path / (page.stem + ".py")
                program.write_text(python_program(page), encoding="utf-8")
                output, python_ran = run([sys.executable, str(program)], tmp_path, str(page)), True
    finally:
        if (tmp_path / "home" / "run" / "endpoint.json").exists():
            run(["simyard", "stop"], tmp_path, "simyard stop")


def test_the_comparison_of_output_can_fail() -> None:
    printed = "job 17 submitted\nsome noise\n  state: completed\n"
    assert prints("job … submitted\nstate: completed", printed)
    assert not prints("state: completed\njob … submitted", printed)
    assert not prints("state: failed", printed)


def prose(page: Path) -> str:
    """Return the page without its code blocks."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Return the anchors that a renderer makes of the page's headings."""
    titles = re.findall(r"^#+ +(.+?)\s*$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        goal = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        known = anchors(goal.relative_to(ROOT)) if goal.suffix == ".md" and goal.exists() else set()
        if not goal.exists() or (anchor and anchor not in known):
            broken.append(target)
    assert broken == []


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = [page.relative_to("docs").as_posix() for page in PAGES if page.parts[0] == "docs"]
    missing = [page for page in pages if page != "index.md" and f"({page})" not in index]
    assert missing == []


def reference() -> str:
    folder = ROOT / "docs" / "reference"
    return "\n".join(page.read_text(encoding="utf-8") for page in sorted(folder.glob("*.md")))


def test_every_public_name_is_in_the_reference() -> None:
    text = reference()
    names = [name for name in simyard.__all__ if not name.startswith("__")]
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []


def test_every_error_code_is_in_the_reference() -> None:
    text = reference()
    assert [code for code in by_code() if f"`{code}`" not in text] == []


def test_every_command_is_in_the_reference() -> None:
    text = reference()
    commands = importlib.import_module("simyard.cli.main").COMMANDS
    assert [name for name in commands if not re.search(rf"(simyard |`){name}\b", text)] == []


def variables_read() -> set[str]:
    """Return every SIMYARD_… name that stands as a whole string in the code."""
    found = set()
    for path in kept_files():
        if path.suffix == ".py" and path.parts[0] not in {"tests", "examples", "docs"}:
            for node in ast.walk(ast.parse((ROOT / path).read_bytes())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found |= set(re.findall(r"\ASIMYARD_[A-Z_]*[A-Z]\Z", node.value))
    return found


def test_every_environment_variable_is_in_the_reference() -> None:
    text = reference()
    assert [name for name in sorted(variables_read()) if name not in text] == []
