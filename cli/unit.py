"""The systemd user unit of a service: text only; nothing here talks to systemd."""

from __future__ import annotations

from collections.abc import Sequence

_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/=:,+@")


def unit(command: Sequence[str], home: str) -> str:
    """Return the unit that runs `command`, the service of `home`, for as long as the user lives."""
    return f"""\
[Unit]
Description=Simyard, the jobs of {_text(home)}
Documentation=man:systemd.service(5)

[Service]
Type=exec
ExecStart={" ".join(map(_word, command))}
# Jobs outlive the service: a stop, a restart or an upgrade ends the service alone.
KillMode=process
# It ends within seconds, and is started again only where it did not mean to end.
TimeoutStopSec=15
Restart=on-failure
RestartSec=2
# A job that runs out of memory is the end of that job, not of the service.
OOMPolicy=continue

[Install]
WantedBy=default.target
"""


def _word(text: str) -> str:
    """Quote one word of a command line as systemd.syntax(7) and systemd.service(5) ask for."""
    escaped = _text(text).replace("$", "$$")
    if escaped and set(escaped) <= _PLAIN:
        return escaped
    quoted = escaped.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


def _text(text: str) -> str:
    return text.replace("%", "%%").replace("\n", " ")
