"""`make demo`: the sweep on a fresh service of its own, which leaves nothing behind.

The home is a new folder under `build/demo`; with `--keep` the service and its dashboard
stay, and how to stop them is printed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> int:
    """Run the demo; the exit code is the sweep's."""
    parser = argparse.ArgumentParser(description="Run the example sweep on a service of its own.")
    parser.add_argument("--keep", action="store_true", help="leave the service running")
    parser.add_argument("--cell", type=float, default=0.08, help="edge of a cell of the grid, mm")
    options = parser.parse_args()
    console = Console()
    began = time.monotonic()

    # Whatever the caller has set for services of their own is not for this one.
    for name in [name for name in os.environ if name.startswith("SIMYARD_")]:
        del os.environ[name]
    os.environ["SIMYARD_LAUNCHER_IDLE"] = "2"
    folder = ROOT / "build" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="home-", dir=folder))

    import sweep

    from simyard import JobManagerHandler

    handler = JobManagerHandler(home, port=0, on_close="leave")
    try:
        address = handler.start_service(detached=options.keep)
        console.print(f"The service runs at {address}", highlight=False)
        code = sweep.run(handler, folder / "results", console, cell=options.cell)
    except KeyboardInterrupt:
        console.print("Interrupted.")
        code = 130
        options.keep = False
    finally:
        handler.close()

    if options.keep:
        program = Path(sys.executable).parent / "simyard"
        for line in (
            f"Dashboard: {address}, opened with",
            f"           {program} dashboard --home {home}",
            "It stays until it has been idle for 15 minutes, or until",
            f"           {program} stop --home {home}",
        ):
            console.print(line, highlight=False, soft_wrap=True)
    else:
        console.print(
            f"Dashboard: {address} while it ran; `make demo KEEP=1` lets it stay", highlight=False
        )
        shutil.rmtree(home, ignore_errors=True)
    console.print(f"Took {time.monotonic() - began:.0f} s.", highlight=False)
    return code


if __name__ == "__main__":
    sys.exit(main())
