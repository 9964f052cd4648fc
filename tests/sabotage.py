"""`make sabotage`: break one mechanism at a time, and see that its named test turns red.

Each line of `SABOTAGES` changes one place of a copy of the tree; the test that guards the
mechanism is run there and must fail. A breakage that stays green is a promise that nothing
holds. `tests/unit/test_sabotage.py` keeps the list in step with the code.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 240


@dataclass(frozen=True)
class Sabotage:
    """One breakage: what it takes away, where, and the test that must notice."""

    mechanism: str
    file: str
    old: str
    new: str
    test: str


SABOTAGES = (
    Sabotage(
        "a success is never tried again",
        "service/outcomes.py",
        "failed = state is JobState.FAILED and not cancelled",
        "failed = not cancelled",
        "tests/unit/test_outcomes.py::test_a_success_is_not_retried_although_it_has_an_exit_code",
    ),
    Sabotage(
        "an ending from outside is no success",
        "service/outcomes.py",
        "    if ending.cause is not Cause.OWN:\n",
        "    if ending.cause is not Cause.OWN and ending.exit_code != 0:\n",
        "tests/unit/test_outcomes.py::"
        "test_an_ending_from_outside_is_never_a_success_even_with_exit_code_zero",
    ),
    Sabotage(
        "what an adapter refuses goes back to the queue",
        "service/dispatcher.py",
        "            await self._give_up([claim.tag for claim in claims])\n",
        "            pass\n",
        "tests/integration/test_dispatcher.py::"
        "test_what_an_adapter_refuses_goes_back_to_the_queue_and_is_tried_again",
    ),
    Sabotage(
        "nobody waits behind a job that proved long",
        "service/dispatcher.py",
        "                await self._take_back_stuck()\n",
        "",
        "tests/acceptance/test_queue.py::test_no_short_job_waits_behind_one_that_proved_long",
    ),
    Sabotage(
        "what is decided is kept while the disk is full",
        "service/yard.py",
        "            await self._owe(batch)\n            return\n",
        "            return\n",
        "tests/integration/test_dispatcher.py::"
        "test_what_happens_while_the_disk_is_full_is_kept_and_written_later",
    ),
    Sabotage(
        "a repeated key is one job, also at the same time",
        "service/intake.py",
        "        while idempotency_key in self._under_way:\n",
        "        while False:\n",
        "tests/integration/test_dispatcher.py::"
        "test_submissions_at_the_same_time_with_one_key_are_one_job",
    ),
    Sabotage(
        "a promised cancel outlives the manager",
        "service/manager.py",
        "            if entry.job.cancel_requested:\n                await self._end_outside(entry)\n",
        "            pass\n",
        "tests/faults/test_manager_killed.py::"
        "test_a_manager_killed_during_a_cancel_ends_the_job_as_cancelled",
    ),
    Sabotage(
        "a fork does not keep the home",
        "service/home.py",
        "    os.register_at_fork(after_in_child=_let_go_of_locks)",
        "    pass",
        "tests/unit/test_home.py::test_a_fork_that_outlives_the_manager_does_not_keep_the_home",
    ),
    Sabotage(
        "secrets have their mode from the first byte",
        "service/home.py",
        'with open(os.open(temporary, flags, 0o600), "wb") as file:',
        'with open(os.open(temporary, flags, 0o644), "wb") as file:',
        "tests/unit/test_home.py::test_all_folders_are_private_whatever_the_umask_is",
    ),
    Sabotage(
        "an heir waits for the grant that is in use",
        "scheduler_adapters/launcher/roster.py",
        "            before += heirs\n",
        "            self._followers[job.tag] = heirs\n",
        "tests/integration/test_launcher_jobs.py::"
        "test_whoever_waited_for_a_withdrawn_one_goes_on_waiting",
    ),
    Sabotage(
        "the whole tree ends, not its leader alone",
        "scheduler_adapters/launcher/ending.py",
        "                members = found.get(job.tag, ())\n",
        "                members = [p for p in found.get(job.tag, ()) if p.pid == job.pid]\n",
        "tests/integration/test_launcher_trees.py::test_a_cancelled_job_leaves_no_process_behind",
    ),
    Sabotage(
        "a start without its record is looked for by its tag",
        "scheduler_adapters/launcher/adoption.py",
        "        self._tagged = processes.find_tagged(tags)\n",
        "        self._tagged = {}\n",
        "tests/faults/test_launcher_killed.py::test_a_start_without_its_record_is_found_by_the_tag",
    ),
    Sabotage(
        "what ran before a restart of the host is interrupted",
        "scheduler_adapters/launcher/adoption.py",
        '            if str(started.get("boot") or boot) != self._launcher.boot:\n',
        "            if False:\n",
        "tests/faults/test_launcher_killed.py::"
        "test_what_ran_before_a_restart_of_the_host_is_interrupted",
    ),
    Sabotage(
        "another host name is refused",
        "service/security.py",
        "and hosts[0].lower() in self._allowed:",
        "and hosts[0]:",
        "tests/integration/test_rest_guard.py::"
        "test_another_host_name_is_refused_on_every_kind_of_route",
    ),
    Sabotage(
        "another origin is refused",
        "service/security.py",
        '            raise Forbidden("requests from pages of another origin are refused")\n',
        "            return\n",
        "tests/integration/test_rest_guard.py::test_another_origin_is_refused_even_with_the_token",
    ),
    Sabotage(
        "nothing answers without the credential",
        "service/security.py",
        "        if hmac.compare_digest(_digest(secret), self._digest):\n",
        "        if secret:\n",
        "tests/integration/test_rest_guard.py::test_no_route_answers_without_the_right_credential",
    ),
    Sabotage(
        "the server proves itself before the token is sent",
        "handler/endpoint.py",
        "not hmac.compare_digest(given.encode(), wanted.encode())",
        "not given",
        "tests/unit/test_handler_wire.py::"
        "test_another_program_on_the_port_of_a_dead_service_is_not_believed",
    ),
)


def copy_of_the_tree(folder: Path) -> Path:
    """Copy what git tracks into `folder`; the real tree is never changed."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode()
    for name in filter(None, names.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    return folder


def turns_red(tree: Path, sabotage: Sabotage) -> bool:
    """Break the tree, run the named test there, mend it; True where the test failed."""
    path = tree / sabotage.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(sabotage.old, sabotage.new), encoding="utf-8")
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", sabotage.test],
            cwd=tree,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
        return ended.returncode == 1
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(whole, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Break one mechanism at a time.")
    parser.add_argument("--only", default="", help="part of a mechanism's words")
    options = parser.parse_args()
    green = []
    with tempfile.TemporaryDirectory(prefix="simyard-sabotage-") as folder:
        tree = copy_of_the_tree(Path(folder))
        for sabotage in SABOTAGES:
            if options.only in sabotage.mechanism:
                red = turns_red(tree, sabotage)
                print(f"{'red  ' if red else 'GREEN'}  {sabotage.mechanism}", flush=True)
                green += [] if red else [sabotage.mechanism]
    print(f"{len(green)} breakages were not noticed")
    return 1 if green else 0


if __name__ == "__main__":
    sys.exit(main())
