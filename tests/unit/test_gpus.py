"""GPUs as the host's own tools tell of them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from simyard.errors import InvalidInput, UsageError
from simyard.service import gpus
from simyard.service.gpus import Gpu, discover, parse_amd, parse_nvidia
from simyard.service.resources import Limits
from simyard.service.server import _with_gpus
from simyard.service.settings import Settings

A100 = "0, NVIDIA A100-SXM4-40GB, 40960\n1, NVIDIA A100-SXM4-40GB, 40960\n"
MI250 = {
    "card0": {"Card series": "AMD INSTINCT MI250", "VRAM Total Memory (B)": "68702699520"},
    "card1": {"Card series": "AMD INSTINCT MI250", "VRAM Total Memory (B)": "68702699520"},
    "system": {"Driver version": "6.3"},
}


def test_nvidias_lines_are_read() -> None:
    assert parse_nvidia(A100) == [Gpu(n, "NVIDIA A100-SXM4-40GB", 40960 << 20) for n in (0, 1)]
    assert parse_nvidia("1, T4, [N/A]\n0, T4\n") == [Gpu(0, "T4"), Gpu(1, "T4")]


def test_amds_object_is_read_also_behind_a_warning() -> None:
    text = "WARNING: AMD GPU device(s) is/are in a low-power state\n" + json.dumps(MI250)
    assert parse_amd(text) == [Gpu(n, "AMD INSTINCT MI250", 68702699520) for n in (0, 1)]


@pytest.mark.parametrize(
    "text", ["", "No devices were found\n", "{", "[]", '{"card0": 1}', "index, name\n", "\x00"]
)
def test_what_tells_of_no_gpu_counts_as_none(text: str) -> None:
    assert parse_nvidia(text) == [] and parse_amd(text) == []


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing but the tools that a test puts there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)


def test_a_host_without_tools_has_none(tools: Path) -> None:
    assert discover() == []


def test_the_tools_are_asked_in_turn(tools: Path) -> None:
    tool(tools, "rocm-smi", f"echo '{json.dumps(MI250)}'")
    assert [gpu.name for gpu in discover()] == ["AMD INSTINCT MI250"] * 2
    tool(tools, "nvidia-smi", "echo 'NVIDIA-SMI has failed' >&2; exit 9")
    assert len(discover()) == 2, "one that fails is passed over"
    tool(tools, "nvidia-smi", "echo 0, T4, 1024")
    assert discover() == [Gpu(0, "T4", 1024 << 20)]


@pytest.mark.parametrize(
    ("given", "count"), [("0", 1), ("0,1", 2), ("0, 1,2", 2), ("", 0), ("1", 0), ("GPU-8f6d", 0)]
)
def test_gpus_that_the_service_was_not_given_are_not_handed_out(
    tools: Path, monkeypatch: pytest.MonkeyPatch, given: str, count: int
) -> None:
    tool(tools, "nvidia-smi", f"printf '{A100}'")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert len(discover()) == count


def test_a_tool_that_hangs_is_given_up(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "SECONDS", 0.2)
    tool(tools, "nvidia-smi", "exec /bin/sleep 60")
    begun = time.monotonic()
    assert discover() == [] and time.monotonic() - begun < 10


async def test_auto_counts_them_and_a_number_is_taken_as_it_is(tools: Path) -> None:
    tool(tools, "nvidia-smi", f"printf '{A100}'")
    given = Settings.load(tools, {"gpus": " Auto "}, environ={})
    with pytest.raises(UsageError):
        Limits.from_settings(given)
    counted = await _with_gpus(given)
    assert counted.gpus == 2 and counted.origin("gpus") == "flag --gpus"
    assert Limits.from_settings(counted).gpus == 2
    one = Settings.load(tools, {"gpus": "1"}, environ={})
    assert (await _with_gpus(one)).gpus == 1
    for wrong in ("some", -1):
        with pytest.raises(InvalidInput, match="gpus"):
            Settings.load(tools, {"gpus": wrong}, environ={})
