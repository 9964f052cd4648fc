"""S11 of a loaded microstrip line, by finite differences in the time domain (FDTD).

The structure is the section along a wide strip (much wider than its height, so that
the field between strip and ground is that of a parallel-plate line), seen from the side:

        ========================= strip ==========================   y = h
         substrate eps_line  |   block eps   |  substrate eps_line
            | feed        probe              |
        ========================= ground =========================   y = 0
        absorbing            |<-- length -->|            absorbing

A block of another dielectric sits under the strip. Between the line's wave and the
block's there is a step of impedance at each face, so the block reflects, except where it
is a whole number of half wavelengths long: there it is a resonator and lets all through.
So S11 dips at

        f_m = m c / (2 length sqrt(eps)),        m = 1, 2, 3, ...

and over all frequencies it is, exactly, with g the reflection of one face alone and
q = 2 pi f sqrt(eps) / c the wave number in the block,

        S11 = g (1 - e^(-2 i q length)) / (1 - g^2 e^(-2 i q length)),
        g = (sqrt(eps_line) - sqrt(eps)) / (sqrt(eps_line) + sqrt(eps)).

The solver knows neither of these: it steps Maxwell's curl equations for Ex, Ey and Hz on
Yee's staggered grid (K. S. Yee, IEEE Trans. Antennas Propag. 14, 1966), with metal as
Ex = 0 at strip and ground and Mur's first-order absorbing condition at both ends
(G. Mur, IEEE Trans. Electromagn. Compat. 23, 1981). A feed in the lower half of the gap,
as a coaxial pin would be, sends a pulse; one run without the block gives the incident
wave, one with it the sum; their spectra give S11. The formulas serve to check it.

It needs NumPy only and knows nothing of Simyard: it is what any solver is to a queue.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Real = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]

LIGHT = 299_792_458.0
"""Metres per second."""
COURANT = 0.99
"""Share of the largest stable time step."""


@dataclass(frozen=True)
class Line:
    """The structure and its discretisation; lengths are metres."""

    length: float
    """Of the block, along the line."""
    eps: float
    """Relative permittivity of the block."""
    eps_line: float = 2.2
    """Relative permittivity of the substrate elsewhere."""
    height: float = 1.6e-3
    """Between ground and strip."""
    cell: float = 0.8e-4
    """Edge of a cell of the grid, at most; the block is a whole number of cells long."""
    lead: float = 30.0e-3
    """Of line on either side of the block."""
    band: tuple[float, float] = (1.0e9, 10.0e9)
    """Frequencies of interest in hertz."""

    def __post_init__(self) -> None:
        if not self.length >= 4 * self.cell:
            raise ValueError(
                f"the block must be at least four cells long: {1e3 * self.length:g} mm "
                f"with cells of {1e3 * self.cell:g} mm"
            )
        if not (self.eps >= 1 and self.eps_line >= 1):
            raise ValueError("a relative permittivity is at least 1")
        if not self.height >= 2 * self.cell:
            raise ValueError("the strip must be at least two cells above the ground")
        cells = math.ceil(self.length / self.cell - 1e-9)
        object.__setattr__(self, "cell", self.length / cells)

    @property
    def columns(self) -> int:
        """Cells along the line; the block's faces lie on the grid."""
        return 2 * self.lead_cells + self.block_cells

    @property
    def rows(self) -> int:
        """Cells between ground and strip."""
        return round(self.height / self.cell)

    @property
    def lead_cells(self) -> int:
        return round(self.lead / self.cell)

    @property
    def block_cells(self) -> int:
        return round(self.length / self.cell)

    @property
    def time_step(self) -> float:
        """Seconds, from Courant's limit in the faster of the two dielectrics."""
        speed = LIGHT / np.sqrt(min(self.eps, self.eps_line))
        return float(COURANT * self.cell / (speed * np.sqrt(2.0)))

    @property
    def duration(self) -> float:
        """Seconds until the pulse has left, echoes inside the block included."""
        way = 2 * self.lead * np.sqrt(self.eps_line) + 10 * self.length * np.sqrt(self.eps)
        return float(way / LIGHT + 2 * PULSE_WIDTHS / self.band[1])


PULSE_WIDTHS = 3.0
"""Delay of the pulse's middle, in periods of the highest frequency."""


def simulate(line: Line, eps: float, progress: Callable[[float], None]) -> tuple[Real, Real]:
    """Return the times in seconds and the voltage at the probe, with a block of `eps`."""
    rows, columns, cell, step = line.rows, line.columns, line.cell, line.time_step
    first, last = line.lead_cells, line.lead_cells + line.block_cells
    feed, probe = line.lead_cells // 3, 2 * line.lead_cells // 3

    # Ey lies on the columns' edges: a face of the block sees the mean of both sides.
    eps_y = np.full(columns + 1, line.eps_line)
    eps_y[first + 1 : last] = eps
    eps_y[[first, last]] = (line.eps_line + eps) / 2
    eps_x = np.full(columns, line.eps_line)
    eps_x[first:last] = eps

    # Fields are scaled (E by the impedance of free space), so one factor serves both curls.
    # The long axis is the last one: NumPy's inner loop then runs along the line.
    factor = LIGHT * step / cell
    ex = np.zeros((rows + 1, columns))
    ey = np.zeros((rows, columns + 1))
    hz = np.zeros((rows, columns))
    to_ex = factor / eps_x
    to_ey = factor / eps_y[1:-1]
    scratch_x = np.empty((rows - 1, columns))
    scratch_y = np.empty((rows, columns - 1))
    scratch_h = np.empty((rows, columns))

    speed = LIGHT / np.sqrt(line.eps_line)
    mur = (speed * step - cell) / (speed * step + cell)

    count = round(line.duration / step)
    times: Real = step * np.arange(count, dtype=np.float64)
    centre = (line.band[0] + line.band[1]) / 2
    delay, width = PULSE_WIDTHS / line.band[1], 0.5 / centre
    drive = -((times - delay) / width) * np.exp(-(((times - delay) / width) ** 2))
    voltage = np.empty(count)

    for n in range(count):
        np.subtract(hz[1:], hz[:-1], out=scratch_x)
        scratch_x *= to_ex
        ex[1:-1] += scratch_x

        left, right = ey[:, 1].copy(), ey[:, -2].copy()
        np.subtract(hz[:, :-1], hz[:, 1:], out=scratch_y)
        scratch_y *= to_ey
        ey[:, 1:-1] += scratch_y
        ey[: rows // 2, feed] += drive[n]
        ey[:, 0] = left + mur * (ey[:, 1] - ey[:, 0])
        ey[:, -1] = right + mur * (ey[:, -2] - ey[:, -1])

        np.subtract(ey[:, :-1], ey[:, 1:], out=scratch_h)
        scratch_h += ex[1:]
        scratch_h -= ex[:-1]
        scratch_h *= factor
        hz += scratch_h

        voltage[n] = ey[:, probe].sum()
        if n % 500 == 0:
            progress(n / count)
    return times, voltage


def spectrum(times: Real, values: Real, frequencies: Real) -> Complex:
    """Return the Fourier transform at just these frequencies."""
    step = times[1] - times[0]
    result = np.empty(frequencies.size, dtype=np.complex128)
    for index, frequency in enumerate(frequencies):
        result[index] = np.dot(values, np.exp(-2j * np.pi * frequency * times)) * step
    return result


def exact_s11(line: Line, frequencies: Real) -> Complex:
    """Return S11 at the block's first face from transmission-line theory."""
    n_line, n_block = np.sqrt(line.eps_line), np.sqrt(line.eps)
    face = (n_line - n_block) / (n_line + n_block)
    turn = np.exp(-4j * np.pi * frequencies * n_block * line.length / LIGHT)
    result: Complex = face * (1 - turn) / (1 - face**2 * turn)
    return result


def exact_resonance(line: Line) -> float:
    """Return the first frequency in hertz at which the block is half a wavelength long."""
    return float(LIGHT / (2 * line.length * np.sqrt(line.eps)))


def first_dip(frequencies: Real, s11: Complex) -> float | None:
    """Return the frequency of the first deep minimum of |S11|, refined by a parabola."""
    power = np.abs(s11) ** 2
    for k in range(1, power.size - 1):
        if power[k] <= power[k - 1] and power[k] < power[k + 1] and power[k] < 0.05 * power.max():
            below, here, above = power[k - 1], power[k], power[k + 1]
            shift = 0.5 * (below - above) / (below - 2 * here + above)
            return float(frequencies[k] + shift * (frequencies[1] - frequencies[0]))
    return None


def solve(line: Line, report: Callable[[float], None]) -> dict[str, Any]:
    """Run both simulations and return what is written to the result file."""
    began = time.perf_counter()
    frequencies = np.linspace(line.band[0], line.band[1], 361)
    times, incident = simulate(line, line.eps_line, lambda share: report(share / 2))
    _, total = simulate(line, line.eps, lambda share: report(0.5 + share / 2))
    at_probe = spectrum(times, total - incident, frequencies) / spectrum(
        times, incident, frequencies
    )
    # From the probe to the block's face and back.
    way = (line.lead_cells - 2 * line.lead_cells // 3) * line.cell
    s11 = at_probe * np.exp(4j * np.pi * frequencies * np.sqrt(line.eps_line) * way / LIGHT)

    exact = exact_s11(line, frequencies)
    dip, expected = first_dip(frequencies, s11), exact_resonance(line)
    return {
        "length_mm": 1e3 * line.length,
        "eps": line.eps,
        "eps_line": line.eps_line,
        "cells": line.columns * line.rows,
        "steps": int(times.size),
        "seconds": round(time.perf_counter() - began, 3),
        "resonance_ghz": None if dip is None else dip / 1e9,
        "resonance_exact_ghz": expected / 1e9,
        "resonance_error_percent": None if dip is None else 100 * (dip / expected - 1),
        "s11_largest_error": float(np.abs(s11 - exact).max()),
        "frequency_ghz": (frequencies / 1e9).tolist(),
        "s11_db": decibels(s11).tolist(),
        "s11_exact_db": decibels(exact).tolist(),
        "s11_real": s11.real.tolist(),
        "s11_imag": s11.imag.tolist(),
    }


def decibels(values: Complex) -> Real:
    """Return the magnitude in decibels, cut off at -80."""
    result: Real = 20 * np.log10(np.maximum(np.abs(values), 1e-4))
    return result


def write_whole(path: Path, result: dict[str, Any]) -> None:
    """Write the result so that a reader never sees half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(result) + "\n", encoding="utf-8")
    os.replace(partial, path)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; lengths are millimetres there."""
    parser = argparse.ArgumentParser(
        description="S11 of a microstrip line with a dielectric block under the strip (2-D FDTD)."
    )
    parser.add_argument("--length", type=float, required=True, help="of the block, mm")
    parser.add_argument("--eps", type=float, required=True, help="permittivity of the block")
    parser.add_argument("--eps-line", type=float, default=2.2, help="of the line (default 2.2)")
    parser.add_argument("--cell", type=float, default=0.08, help="edge of a cell, mm (0.08)")
    parser.add_argument(
        "--output", type=Path, default=Path("result.json"), help="default: result.json"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the shell: 0 when the result is written, 2 when the input makes no sense."""
    options = parse(arguments)
    try:
        line = Line(
            length=1e-3 * options.length,
            eps=options.eps,
            eps_line=options.eps_line,
            cell=1e-3 * options.cell,
        )
    except ValueError as error:
        print(f"solver: {error}", file=sys.stderr)
        return 2
    print(
        f"block {options.length:g} mm, eps {options.eps:g}: "
        f"{line.columns} x {line.rows} cells, 2 x {round(line.duration / line.time_step)} steps",
        flush=True,
    )
    shown = -1

    def report(share: float) -> None:
        nonlocal shown
        percent = int(10 * share) * 10
        if percent > shown:
            shown = percent
            print(f"progress {percent}%", flush=True)

    result = solve(line, report)
    write_whole(options.output, result)
    print("progress 100%")
    if result["resonance_ghz"] is None:
        print("no resonance in the band")
    else:
        print(
            f"resonance {result['resonance_ghz']:.4f} GHz, "
            f"theory {result['resonance_exact_ghz']:.4f} GHz "
            f"({result['resonance_error_percent']:+.2f} %)"
        )
    print(f"largest error of S11 over the band: {result['s11_largest_error']:.4f}")
    print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
