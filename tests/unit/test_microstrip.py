"""The example's solver computes what transmission-line theory says, and fails in plain words."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from checkout import ROOT


@pytest.fixture(scope="module")
def solver() -> ModuleType:
    path = ROOT / "examples" / "microstrip" / "solver.py"
    spec = importlib.util.spec_from_file_location("microstrip_solver", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def coarse(solver: ModuleType, **changes: float) -> object:
    return replace(solver.Line(length=15e-3, eps=6.0, cell=0.3e-3), **changes)


def test_s11_agrees_with_theory_over_the_whole_band(solver: ModuleType) -> None:
    result = solver.solve(coarse(solver), lambda _share: None)
    assert result["s11_largest_error"] < 0.01
    assert abs(result["resonance_error_percent"]) < 0.1


def test_a_longer_block_resonates_lower(solver: ModuleType) -> None:
    short = solver.solve(coarse(solver, length=12e-3), lambda _share: None)
    long = solver.solve(coarse(solver, length=18e-3), lambda _share: None)
    assert long["resonance_ghz"] / short["resonance_ghz"] == pytest.approx(12 / 18, rel=0.002)


def test_a_finer_grid_is_closer_to_theory(solver: ModuleType) -> None:
    errors = [
        solver.solve(coarse(solver, cell=cell), lambda _share: None)["s11_largest_error"]
        for cell in (0.5e-3, 0.25e-3)
    ]
    assert errors[1] < errors[0] / 3


def test_the_check_would_notice_a_wrong_material(solver: ModuleType) -> None:
    line = coarse(solver)
    times, incident = solver.simulate(line, 2.2, lambda _share: None)
    _, total = solver.simulate(line, 7.0, lambda _share: None)
    frequencies = np.linspace(1e9, 1e10, 91)
    s11 = solver.spectrum(times, total - incident, frequencies) / solver.spectrum(
        times, incident, frequencies
    )
    assert np.abs(np.abs(s11) - np.abs(solver.exact_s11(line, frequencies))).max() > 0.05


def test_a_block_of_the_lines_own_material_reflects_nothing(solver: ModuleType) -> None:
    result = solver.solve(coarse(solver, eps=2.2), lambda _share: None)
    assert max(result["s11_db"]) == -80.0
    assert result["resonance_ghz"] is None


def test_the_shell_writes_a_result_and_tells_its_progress(
    solver: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "result.json"
    words = ["--length", "15", "--eps", "6", "--cell", "0.4", "--output", str(output)]
    assert solver.main(words) == 0
    result = json.loads(output.read_text())
    assert len(result["frequency_ghz"]) == len(result["s11_db"]) == 361
    printed = capsys.readouterr().out
    assert "progress 50%" in printed
    assert "theory" in printed
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--length", "0.01", "--eps", "3"], "at least four cells long"),
        (["--length", "10", "--eps", "0.5"], "at least 1"),
        (["--length", "10", "--eps", "3", "--cell", "1.2"], "two cells above the ground"),
    ],
)
def test_senseless_input_is_refused_in_a_sentence(
    solver: ModuleType, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert solver.main(words) == 2
    assert sentence in capsys.readouterr().err
