"""Where this machine ends processes that their owner wants to live on, and what prevents it.

Standard library only: the shell's first submission says it. Looks only.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_LOGIND = (
    "busctl",
    "get-property",
    "org.freedesktop.login1",
    "/org/freedesktop/login1",
    "org.freedesktop.login1.Manager",
    "KillUserProcesses",
)


def logout() -> tuple[bool, str] | None:
    """Tell whether jobs outlive the end of a login session, and what that means.

    None where nothing is known: no systemd, or it does not answer.
    """
    if not os.path.isdir("/run/systemd/system"):
        return None
    kills = _ask(*_LOGIND)
    if not kills:
        return None
    if kills != "b true":
        return True, "logging out leaves processes alone"
    if _ask("loginctl", "show-user", str(os.getuid()), "--property=Linger") == "Linger=yes":
        return True, "lingering is on: jobs outlive the logout"
    return False, "logging out ends your jobs; 'loginctl enable-linger' prevents it"


def enclosure(environment: Mapping[str, str] | None = None) -> str | None:
    """Say what we are in whose end is the end of every job, and what to do; None in nothing."""
    environment = os.environ if environment is None else environment
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        where = "a container"
    elif environment.get("KUBERNETES_SERVICE_HOST"):
        where = "a Kubernetes pod"
    elif any(environment.get(name) for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")):
        where = "a batch job of the site's scheduler"
    else:
        return None
    return f"this is {where}: jobs end when it ends; keep the home folder on a volume that stays"


def hints() -> list[str]:
    """Return a sentence for each thing here that would end jobs behind their owner's back."""
    found = []
    login = logout()
    if login is not None and not login[0]:
        found.append(login[1])
    around = enclosure()
    if around is not None:
        found.append(around)
    return found


def _ask(*command: str) -> str:
    import subprocess

    try:
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=3,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
