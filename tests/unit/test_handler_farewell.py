"""What is done before the process ends, and that a fork does not do it twice."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, sys, threading, warnings
from simyard.handler import farewell

class Thing:
    def __init__(self, name):
        self.name = name
    def at_exit(self):
        # Threads must still be to be had: a hosted service needs them to end properly.
        worker = threading.Thread(target=lambda: print(self.name, flush=True))
        worker.start()
        worker.join()
        if self.name == "second":
            raise RuntimeError("one that fails does not keep the others from acting")

first, second, third = Thing("first"), Thing("second"), Thing("third")
for thing in (first, second, third):
    farewell.register(thing)
farewell.unregister(third)
warnings.simplefilter("ignore")
if os.fork() == 0:
    sys.exit(0)
os.wait()
print("parent", flush=True)
sys.exit(4)
"""


def test_the_latest_acts_first_in_the_process_that_registered_and_nowhere_else() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["parent", "second", "first"]
    assert (done.returncode, done.stderr) == (4, "")
