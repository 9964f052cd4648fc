"""Imports point downwards only; what must start quickly imports little."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import LAYERS, ROOT, modules

STDLIB = sys.stdlib_module_names | {"__future__"}
MODULES = dict(modules())
FACE = frozenset({"__version__"})
"""What any layer may take from the package's own `__init__`."""


def imports(module: str, path: Path, tree: ast.Module | None = None) -> Iterator[str]:
    """Yield all that a module imports, wherever in it: ours as ".service.home", others as is."""
    parts = module.split(".") if module else []
    inside = parts if path.name == "__init__.py" else parts[:-1]
    for node in ast.walk(tree or ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module)
        elif isinstance(node, ast.ImportFrom):
            above = len(inside) - (node.level - 1)
            assert above >= 0, f"{path}:{node.lineno} reaches out of the package"
            base = inside[:above] + (node.module.split(".") if node.module else [])
            if base:
                yield "." + ".".join(base)
            # `from . import name` may name a module, or something inside one.
            names = (".".join([*base, alias.name]) for alias in node.names)
            yield from ("." + name for name in names if not base or name in MODULES)


def every_import() -> Iterator[tuple[str, Path, str]]:
    for module, path in modules():
        for name in imports(module, path):
            yield module, path, name


def test_every_module_belongs_to_a_layer() -> None:
    tops = {module for module, path in modules() if path.parent == ROOT}
    assert tops <= {"", "__main__", "errors"}


def test_imports_point_downwards_only() -> None:
    upwards = []
    for module, path, name in every_import():
        own = module.split(".")[0]
        if own not in LAYERS or not name.startswith("."):
            continue
        target = name[1:].split(".")[0]
        if target in FACE:
            continue
        if target not in LAYERS or LAYERS.index(target) > LAYERS.index(own):
            upwards.append(f"{path.relative_to(ROOT)} imports {name[1:]}")
    assert upwards == []


def test_inside_the_package_imports_are_relative() -> None:
    """Only Alembic's `env.py` cannot: it is run as a script, outside of any package."""
    absolute = [
        f"{path.relative_to(ROOT)} imports {name}"
        for _module, path, name in every_import()
        if name.split(".")[0] in {"simyard", *LAYERS} and path.name != "env.py"
    ]
    assert absolute == []


def runtime_imports(module: str, path: Path) -> set[str]:
    """Return what is imported when it runs: not what only type checkers read."""
    tree = ast.parse(path.read_bytes(), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return set(imports(module, path, tree))


def reached(start: str) -> tuple[set[str], set[str]]:
    """Return the modules of ours that `start` needs, and all others that those import."""
    ours, others, waiting = set[str](), set[str](), [start]
    while waiting:
        module = waiting.pop()
        ours.add(module)
        for name in runtime_imports(module, MODULES[module]):
            if not name.startswith("."):
                others.add(name)
            elif name[1:] not in ours:
                waiting.append(name[1:])
    return ours, others


@pytest.mark.parametrize(
    ("start", "within"),
    [
        ("errors", "errors"),
        ("scheduler_adapters.launcher.__main__", "scheduler_adapters"),
        ("handler.discovery", "handler|errors"),
        ("cli.submit_job", "cli|handler|errors"),
        ("cli.main", "cli|handler|errors"),
    ],
)
def test_what_must_start_quickly_needs_the_standard_library_only(start: str, within: str) -> None:
    ours, others = reached(start)
    assert {module for module in ours if module.split(".")[0] not in within.split("|")} == set()
    assert {name for name in others if name.split(".")[0] not in STDLIB} == set()


def test_the_launcher_needs_nothing_of_ours_but_its_own_folder() -> None:
    """It is run by its path, and outlives the release around it."""
    ours, _others = reached("scheduler_adapters.launcher.__main__")
    assert len(ours) > 20
    assert {
        module for module in ours if not module.startswith("scheduler_adapters.launcher")
    } == set()


def test_the_rules_of_the_domain_touch_neither_network_nor_store() -> None:
    pure = {"service.model", "service.states", "service.quantities", "service.scheduling"}
    outside = {"asyncio", "aiohttp", "socket", "sqlalchemy", "sqlite3", "subprocess", "threading"}
    impure = [
        f"{module} imports {name}"
        for module, _path, name in every_import()
        if module in pure and name.split(".")[0] in outside
    ]
    assert impure == []


# The last line that is printed names every module that is neither ours nor the interpreter's.
WATCH = """
import sys
known = set(sys.modules)
{action}
new = set(sys.modules) - known
foreign = {{name for name in new
            if name.split(".")[0] not in sys.stdlib_module_names | {{"simyard", "__mp_main__"}}}}
heavy = {{name for name in new
          if name.startswith(("simyard.service", "simyard.scheduler_adapters"))}}
print("FOREIGN", *sorted(foreign | heavy))
"""


def what_it_imports(action: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WATCH.format(action=action)],
        cwd=ROOT / "docs",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "FOREIGN" in done.stdout, done.stderr
    return done.stdout.rstrip().rpartition("FOREIGN")[2].strip()


def test_importing_simyard_imports_nothing_else() -> None:
    assert what_it_imports("import simyard") == ""


def test_submitting_from_the_shell_imports_the_standard_library_only(tmp_path: Path) -> None:
    # Nobody listens at port 9: the way there is walked, and the failure is told.
    words = ["--home", str(tmp_path), "--url", "http://127.0.0.1:9", "--token", "t", "--", "true"]
    action = f"from simyard.cli.submit_job import main; assert main({words!r}) == 1"
    assert what_it_imports(action) == ""
