"""A parameter sweep through Simyard: submit, watch, gather, plot, check against theory.

    python examples/microstrip/sweep.py --output results

submits one job for each length and material of the block, shows them at work, and writes
`results.csv`, `s11.png` and each case's own folder. It ends with 0 when every result agrees
with theory, with 1 when a job failed or a result is off.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from simyard import JobFailed, JobHandle, JobManagerHandler

SOLVER = Path(__file__).resolve().with_name("solver.py")
LENGTHS = (10.0, 12.0, 14.0, 16.0, 18.0, 20.0)
MATERIALS = (4.4, 9.8)
RESONANCE_TOLERANCE = 0.5
"""Percent between the frequency of the dip and theory's."""
S11_TOLERANCE = 0.02
"""Between the complex S11 and theory's, anywhere in the band."""
OVER = frozenset({"completed", "failed", "cancelled"})


@dataclass
class Case:
    """One point of the sweep: its parameters (mm, relative), its folder, its job."""

    length: float
    eps: float
    folder: Path
    task: JobHandle

    @property
    def label(self) -> str:
        return f"eps {self.eps:g}, {self.length:g} mm"

    def read(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads((self.folder / "result.json").read_text("utf-8"))
        return result


def submit_all(
    handler: JobManagerHandler,
    output: Path,
    lengths: Sequence[float],
    materials: Sequence[float],
    cell: float,
) -> list[Case]:
    """Submit one job for each combination, each with a folder of its own."""
    cases = []
    for eps in materials:
        for length in lengths:
            folder = output / "cases" / f"eps-{eps:g}-length-{length:g}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "result.json").unlink(missing_ok=True)
            words = ["--length", f"{length:g}", "--eps", f"{eps:g}", "--cell", f"{cell:g}"]
            task = handler.submit(
                [sys.executable, str(SOLVER), *words],
                name=f"microstrip-{eps:g}-{length:g}mm",
                workdir=str(folder),
                cores=1,
                memory="500 MiB",
                walltime="10m",
                expected_outputs=["result.json"],
                project="microstrip",
            )
            cases.append(Case(length, eps, folder, task))
    return cases


def percent(task: JobHandle) -> int:
    """Return how far the solver says it is."""
    said = [line.split()[1] for line in task.logs(tail=3) if line.startswith("progress ")]
    return int(said[-1].rstrip("%")) if said else 0


def watch(cases: Sequence[Case], console: Console) -> None:
    """Show the sweep at work until every job is over: bars on a terminal, else lines."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=36),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[state]}"),
    )
    waiting = list(cases)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        bar = {case.label: bars.add_task(case.label, total=100, state="") for case in cases}
        while waiting:
            for case in list(waiting):
                state = case.task.status()
                done = percent(case.task) if state == "running" else 100 * (state == "completed")
                bars.update(bar[case.label], completed=done, state=state)
                if state in OVER:
                    waiting.remove(case)
                    if not console.is_terminal:
                        over = len(cases) - len(waiting)
                        console.print(f"{over} of {len(cases)}: {case.label} {state}")
            time.sleep(0.2 if waiting else 0)


def gather(cases: Sequence[Case], console: Console) -> list[dict[str, Any]]:
    """Return the results of what completed; say why, where something did not."""
    results = []
    for case in cases:
        try:
            case.task.result()
        except JobFailed as failure:
            console.print(f"{case.label}: {failure}", style="red", markup=False)
        else:
            results.append({"job": case.task.id, **case.read()})
    return results


def faults(result: dict[str, Any]) -> list[str]:
    """Return what disagrees with theory."""
    found = []
    error = result["resonance_error_percent"]
    if error is None or abs(error) > RESONANCE_TOLERANCE:
        found.append(f"resonance off by {error} % (at most {RESONANCE_TOLERANCE} %)")
    if result["s11_largest_error"] > S11_TOLERANCE:
        found.append(f"S11 off by {result['s11_largest_error']:.3f} (at most {S11_TOLERANCE})")
    return found


COLUMNS = {
    "job": "{}",
    "eps": "{:g}",
    "length_mm": "{:g}",
    "resonance_ghz": "{:.4f}",
    "resonance_exact_ghz": "{:.4f}",
    "resonance_error_percent": "{:+.3f}",
    "s11_largest_error": "{:.5f}",
    "seconds": "{:.1f}",
}
TITLES = ("job", "eps", "length mm", "dip GHz", "theory GHz", "error %", "S11 error", "seconds")


def table(results: Sequence[dict[str, Any]]) -> Table:
    """Return the results as a table for a person."""
    drawn = Table(title="S11 of a microstrip line with a dielectric block, 2-D FDTD")
    for title in TITLES:
        drawn.add_column(title, justify="right")
    for result in results:
        cells = [
            "–" if result[name] is None else form.format(result[name])
            for name, form in COLUMNS.items()
        ]
        drawn.add_row(*cells, style="red" if faults(result) else None)
    return drawn


def write_csv(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write the results as a table for programs."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(COLUMNS), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(results)


def plot(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """Draw S11 over frequency, and the resonance over the block's length, with theory."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    materials = sorted({result["eps"] for result in results})
    shown = [result for result in results if result["eps"] == materials[-1]]
    colours = colormaps["viridis"]
    for index, result in enumerate(shown):
        colour = colours(index / max(1, len(shown)))
        label = f"{result['length_mm']:g} mm"
        left.plot(result["frequency_ghz"], result["s11_db"], color=colour, label=label)
        left.plot(result["frequency_ghz"], result["s11_exact_db"], "k:", linewidth=1)
    left.set(xlabel="frequency in GHz", ylabel="|S11| in dB", ylim=(-45, 0))
    left.set_title(f"eps {materials[-1]:g}; dotted: transmission-line theory")
    left.legend(title="length")
    for eps in materials:
        mine = [result for result in results if result["eps"] == eps]
        lengths = [result["length_mm"] for result in mine]
        right.plot(lengths, [result["resonance_exact_ghz"] for result in mine], "k:", linewidth=1)
        right.plot(lengths, [result["resonance_ghz"] for result in mine], "o", label=f"eps {eps:g}")
    right.set(xlabel="length of the block in mm", ylabel="first dip of S11 in GHz")
    right.set_title("dotted: c / (2 length √eps)")
    right.legend()
    figure.savefig(path, dpi=120)


def run(
    handler: JobManagerHandler,
    output: Path,
    console: Console,
    *,
    lengths: Sequence[float] = LENGTHS,
    materials: Sequence[float] = MATERIALS,
    cell: float = 0.08,
) -> int:
    """Do the whole sweep; return the exit code."""
    output.mkdir(parents=True, exist_ok=True)
    cases = submit_all(handler, output, lengths, materials, cell)
    console.print(f"{len(cases)} jobs submitted, results go to {output}", highlight=False)
    watch(cases, console)
    results = gather(cases, console)
    if not results:
        return 1
    write_csv(output / "results.csv", results)
    plot(output / "s11.png", results)
    console.print(table(results))
    console.print(f"table: {output / 'results.csv'}", highlight=False, soft_wrap=True)
    console.print(f"plot:  {output / 's11.png'}", highlight=False, soft_wrap=True)
    wrong = [f"job {result['job']}: {fault}" for result in results for fault in faults(result)]
    for line in wrong:
        console.print(line, style="red", markup=False)
    if wrong or len(results) < len(cases):
        console.print("The sweep does NOT agree with theory.", style="bold red")
        return 1
    worst = max(abs(result["resonance_error_percent"]) for result in results)
    console.print(
        f"All {len(results)} agree with theory: the dips within {worst:.3f} %, "
        f"S11 within {max(result['s11_largest_error'] for result in results):.4f}.",
        style="bold green",
        highlight=False,
    )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the shell, on the service of this user."""
    parser = argparse.ArgumentParser(description="A parameter sweep of the microstrip example.")
    parser.add_argument("--output", type=Path, default=Path("microstrip-results"))
    parser.add_argument("--lengths", type=float, nargs="+", default=LENGTHS, help="mm")
    parser.add_argument("--eps", type=float, nargs="+", default=MATERIALS)
    parser.add_argument("--cell", type=float, default=0.08, help="edge of a cell, mm")
    options = parser.parse_args(arguments)
    handler = JobManagerHandler()
    try:
        return run(
            handler,
            options.output.resolve(),
            Console(),
            lengths=options.lengths,
            materials=options.eps,
            cell=options.cell,
        )
    finally:
        handler.close()


if __name__ == "__main__":
    sys.exit(main())
