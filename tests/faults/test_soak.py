"""A short soak: random operations and kills against the model. `make soak` runs long ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from faults.soak import soak


@pytest.mark.slow
def test_random_operations_and_kills_violate_no_promise(tmp_path: Path) -> None:
    seed = int(os.environ.get("SIMYARD_TEST_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"seed {seed}")  # shown where it fails; SIMYARD_TEST_SEED repeats it
    run = soak(20.0, seed, tmp_path)
    assert run.jobs
