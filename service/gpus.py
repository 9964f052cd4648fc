"""Which GPUs this host has, as its own tools tell.

Blocking; called once, at start, where the setting `gpus` is ``auto``. The parsers are
pure. It must not know jobs, nor who gets which GPU.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

SECONDS = 15.0
"""How long a tool may take; one whose driver hangs is given up."""
NVIDIA = (
    "nvidia-smi",
    "--query-gpu=index,name,memory.total",
    "--format=csv,noheader,nounits",
)
AMD = ("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json")
_CARD = re.compile(r"card(\d{1,4})\Z")
_MEMORY = "VRAM Total Memory (B)"
_NAMES = ("Card Series", "Card series", "Card Model", "Card model", "Card SKU")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU; `memory` is bytes, 0 where it is not known."""

    index: int
    name: str
    memory: int = 0


def discover() -> list[Gpu]:
    """Return the GPUs that NVIDIA's tool tells of, else those of AMD's; empty without either."""
    parsers: tuple[tuple[tuple[str, ...], Callable[[str], list[Gpu]]], ...] = (
        (NVIDIA, parse_nvidia),
        (AMD, parse_amd),
    )
    for (command, parse), variable in zip(
        parsers, ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"), strict=True
    ):
        found = _ask(command, parse)
        if found:
            return shown(found, os.environ.get(variable), variable)
    return []


def shown(found: list[Gpu], value: str | None, variable: str) -> list[Gpu]:
    """Return those of `found` that the service itself was given by an environment variable.

    Jobs get GPUs by number from 0 on. Where the service was given others, none is counted:
    it would hand out what is somebody else's.
    """
    if value is None:
        return found
    given = [word.strip() for word in value.split(",") if word.strip()]
    if given != [str(number) for number in range(len(given))]:
        log.warning(
            "the service was given the GPUs %s=%s, which do not begin at 0: none is counted; "
            "start it without that variable",
            variable,
            value,
        )
        return []
    return found[: len(given)]


def parse_nvidia(text: str) -> list[Gpu]:
    """Read lines such as ``0, NVIDIA A100-SXM4-40GB, 40960``; what is none of these is skipped."""
    found = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) >= 2 and row[0].strip().isdigit():
            memory = row[2].strip() if len(row) > 2 else ""
            size = int(memory) << 20 if memory.isdigit() else 0
            found.append(Gpu(int(row[0]), row[1].strip(), size))
    return sorted(found, key=lambda gpu: gpu.index)


def parse_amd(text: str) -> list[Gpu]:
    """Read the JSON object of ``rocm-smi``, one entry a card; warnings before it are skipped."""
    begin = text.find("{")
    try:
        document = json.loads(text[begin:]) if begin >= 0 else None
    except ValueError:
        document = None
    found = []
    for key, facts in document.items() if isinstance(document, dict) else ():
        card = _CARD.match(str(key))
        if card is None or not isinstance(facts, dict):
            continue
        name = next((str(facts[word]) for word in _NAMES if facts.get(word)), "AMD GPU")
        memory = str(facts.get(_MEMORY, ""))
        found.append(Gpu(int(card[1]), name, int(memory) if memory.isdigit() else 0))
    return sorted(found, key=lambda gpu: gpu.index)


def _ask(command: tuple[str, ...], parse: Callable[[str], list[Gpu]]) -> list[Gpu]:
    program = shutil.which(command[0])
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("%s does not tell which GPUs there are: %s", program, error)
        return []
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()[:300]
        log.warning("%s ended with %s: %s", program, done.returncode, said)
        return []
    return parse(done.stdout.decode(errors="replace"))
