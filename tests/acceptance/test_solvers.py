"""The job files in `examples/solvers` run as they are written, and their results are right.

Each is submitted by the command of its README in a copy of its folder; what comes out is
compared with theory, or with what somebody else has published.
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
import shutil
from pathlib import Path

import pytest
from checkout import ROOT
from shell import Shell

EXAMPLES = ROOT / "examples" / "solvers"
PROGRAMS = {
    "calculix": ("ccx", "calculix-ccx"),
    "quantum-espresso": ("pw.x", "quantum-espresso"),
    "lammps": ("lmp", "lammps"),
    "openfoam": ("icoFoam", "openfoam"),
}
PSEUDOPOTENTIAL = Path("/usr/share/doc/quantum-espresso/examples/EPW/sic/pp/Si.pz-vbc.UPF")


def results_of(name: str, shell: Shell) -> Path:
    """Run an example to its end and return the folder with its results; skip without its solver."""
    program, package = PROGRAMS[name]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (Debian: {package})")
    folder = shell.cwd / name
    shutil.copytree(EXAMPLES / name, folder)
    shell = Shell(shell.home, folder)
    ended = shell.submit_job("--file", "job.yaml", "--wait")
    log = shell.simyard("logs", "--stderr", ended.out.strip()) if ended.code else ended
    assert ended.code == 0, ended.err + log.out
    return folder


def test_every_example_is_tested_and_described() -> None:
    folders = {path.parent.name for path in EXAMPLES.glob("*/job.yaml")}
    assert folders == set(PROGRAMS)
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [name for name in PROGRAMS if f"| `{name}` |" not in text] == []


def test_the_cantilever_of_calculix_bends_as_beam_theory_says(live_shell: Shell) -> None:
    text = (results_of("calculix", live_shell) / "beam.dat").read_text()
    rows = re.findall(r"^ +\d+ +\S+ +\S+ +(-?\d\.\d+E[+-]\d+)$", text, re.M)
    deflection = -sum(map(float, rows)) / len(rows)
    force, length, side, young, poisson = 100.0, 200.0, 10.0, 210_000.0, 0.3
    bending = force * length**3 / (3 * young * side**4 / 12)
    shear = force * length / (5 / 6 * young / (2 * (1 + poisson)) * side**2)
    assert len(rows) == 25
    assert deflection == pytest.approx(bending + shear, rel=0.01)


def test_silicon_has_the_energy_that_quantum_espresso_publishes(live_shell: Shell) -> None:
    if not any(
        PSEUDOPOTENTIAL.with_name(PSEUDOPOTENTIAL.name + end).exists() for end in ("", ".gz")
    ):
        pytest.skip("no pseudopotential of silicon (Debian: quantum-espresso-data)")
    text = (results_of("quantum-espresso", live_shell) / "si.out").read_text()
    energy = re.search(r"^!\s+total energy\s+=\s+(\S+) Ry", text, re.M)
    level = re.search(r"highest occupied level \(ev\):\s+(\S+)", text)
    assert energy is not None and float(energy[1]) == pytest.approx(-15.84452726, abs=1e-5)
    assert level is not None and float(level[1]) == pytest.approx(5.9568, abs=1e-3)
    assert "convergence has been achieved" in text


def lattice_energy(density: float, cutoff: float) -> float:
    """Return the energy per atom of a Lennard-Jones fcc crystal, by summing over its atoms."""
    edge = (4 / density) ** (1 / 3)
    reach = range(-math.ceil(2 * cutoff / edge), math.ceil(2 * cutoff / edge) + 1)
    energy = 0.0
    for x, y, z in itertools.product(reach, repeat=3):
        if (x + y + z) % 2 == 0 and (x, y, z) != (0, 0, 0):
            squared = (x * x + y * y + z * z) * (edge / 2) ** 2
            if squared < cutoff**2:
                energy += 0.5 * 4 * (squared**-6 - squared**-3)
    return energy


def test_the_melt_of_lammps_starts_as_its_lattice_and_keeps_its_energy(live_shell: Shell) -> None:
    text = (results_of("lammps", live_shell) / "melt.log").read_text()
    table = text.partition("Step Temp")[2].partition("Loop time")[0].splitlines()[1:]
    rows = [[float(word) for word in line.split()] for line in table]
    _, first_temperature, first_potential, first_kinetic, first_total, _ = rows[0]
    assert first_temperature == pytest.approx(1.44)
    assert first_potential == pytest.approx(lattice_energy(0.8442, 2.5), abs=1e-6)
    assert first_kinetic == pytest.approx(1.5 * 1.44 * (4000 - 1) / 4000, rel=1e-6)
    assert [row[0] for row in rows] == list(range(0, 1001, 100))
    assert all(row[4] == pytest.approx(first_total, rel=0.003) for row in rows)
    # Molten: half of the motion has gone into the disorder of the places.
    assert 0.6 < rows[-1][1] < 0.8


CENTRE_LINE = {
    0.9766: 0.84123,
    0.9531: 0.68717,
    0.8516: 0.23151,
    0.7344: 0.00332,
    0.6172: -0.13641,
    0.5000: -0.20581,
    0.4531: -0.21090,
    0.2813: -0.15662,
    0.1719: -0.10150,
    0.1016: -0.06434,
    0.0547: -0.03717,
}
"""Height, speed along the lid: Ghia, Ghia and Shin 1982, table I, Reynolds number 100."""


def test_the_cavity_of_openfoam_turns_as_ghia_found(live_shell: Shell) -> None:
    text = (results_of("openfoam", live_shell) / "20" / "U").read_text()
    cells = re.findall(r"^\((\S+) \S+ \S+\)$", text, re.M)
    side = math.isqrt(len(cells))
    assert side * side == len(cells) and side % 2 == 1
    heights = [0.0, *((row + 0.5) / side for row in range(side)), 1.0]
    speeds = [0.0, *(float(cells[row * side + side // 2]) for row in range(side)), 1.0]
    for height, published in CENTRE_LINE.items():
        place = bisect.bisect(heights, height)
        share = (height - heights[place - 1]) / (heights[place] - heights[place - 1])
        speed = speeds[place - 1] * (1 - share) + speeds[place] * share
        assert speed == pytest.approx(published, abs=0.005), height
