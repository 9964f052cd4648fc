"""Where the service of a home answers, and how it proves that it is the one.

Standard library only, and nothing of ours but `errors`: this module is on the
shell's submit path. It knows the endpoint file and the proof; it does
not know how requests are sent. What a file or a server says is believed only
where nobody but the owner can have said it.
"""

from __future__ import annotations

import json
import os
import socket
import sys

from ..errors import HomeInUse, InvalidInput, NotRunning, PermissionDenied

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs as much as `json`
    from typing import Any


def home_path(home: str | os.PathLike[str] | None = None) -> str:
    """Return the home folder: as given, else `SIMYARD_HOME`, else the user's state folder.

    The last is what `platformdirs.user_state_dir("simyard", appauthor=False)` returns,
    computed here because importing that costs more than the whole request.
    """
    given = os.fspath(home) if home is not None else os.environ.get("SIMYARD_HOME")
    if given:
        return os.path.abspath(os.path.expanduser(given))
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~\\AppData\\Local")
        return os.path.join(os.path.normpath(base), "simyard")
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        library = "Library/Application Support"
        state = os.path.join(_user_home(), library if sys.platform == "darwin" else ".local/state")
    return os.path.join(state, "simyard")


def _user_home() -> str:
    if os.path.isabs(os.environ.get("HOME", "/")):
        found = os.path.expanduser("~")
    else:
        import pwd

        found = pwd.getpwuid(os.getuid()).pw_dir
    if not os.path.isabs(found):
        raise InvalidInput("cannot tell your home folder; give --home, or set HOME or SIMYARD_HOME")
    return found.rstrip("/") or "/"


class Endpoint:
    """Where a service answers, and the token that it shares with its owner."""

    __slots__ = ("boot_id", "host", "pid", "token", "url", "version")

    def __init__(
        self,
        url: str,
        token: str,
        *,
        pid: int | None = None,
        host: str | None = None,
        boot_id: str | None = None,
        version: str | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.token = token
        self.pid = pid
        self.host = host
        self.boot_id = boot_id
        self.version = version
        self.address()

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, pid={self.pid}, host={self.host!r})"

    def address(self) -> tuple[str, str, int]:
        """Split the URL into scheme, host and port; raises `InvalidInput`."""
        scheme, separator, rest = self.url.partition("://")
        authority, slash, _ = rest.partition("/")
        host, colon, port = authority.rpartition(":")
        if authority.endswith("]") or not colon:
            host, port = authority, ""
        if scheme not in ("http", "https") or not separator or not host or slash or "@" in host:
            raise InvalidInput(
                f"{self.url!r} is not the address of a service; it looks like http://127.0.0.1:8080"
            )
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise InvalidInput(f"{port!r} in {self.url!r} is not a port; ports are 1 to 65535")
        return scheme, host, int(port) if port else (443 if scheme == "https" else 80)

    @property
    def authority(self) -> str:
        """Host and port as they stand in the Host header and in the proof."""
        _, host, port = self.address()
        return f"{host}:{port}"

    @property
    def on_this_host(self) -> bool:
        """True where the service is known to run on this boot of this machine."""
        if self.host != socket.gethostname():
            return False
        boot = this_boot()
        return self.boot_id is None or boot is None or self.boot_id == boot


def this_boot() -> str | None:
    """Return the boot id of this host; None where the system does not tell it cheaply."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def find_endpoint(home: str) -> Endpoint:
    """Read who serves `home`, believing the file only where nobody else can have written it.

    Raises `NotRunning` (its details say `stale` where a service died without saying
    goodbye), `PermissionDenied` where the file is not ours alone, `HomeInUse` where the
    service runs on another host.
    """
    path = os.path.join(home, "run", "endpoint.json")
    try:
        facts = json.loads(_read_private(path))
        endpoint = Endpoint(
            facts["url"],
            facts["token"],
            pid=int(facts["pid"]),
            host=facts["host"],
            boot_id=facts["boot_id"],
            version=facts.get("version"),
        )
    except FileNotFoundError:
        raise NotRunning(
            f"no Simyard service runs for the home {home}; start one with 'simyard serve --detach'",
            stale=False,
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NotRunning(
            f"{path} cannot be understood; remove it and start a service with "
            "'simyard serve --detach'",
            stale=True,
        ) from None
    if endpoint.host != socket.gethostname():
        raise HomeInUse(
            f"the service of the home {home} runs on the host {endpoint.host}; use it from there, "
            "or through a tunnel with --url and --token, or choose another --home"
        )
    if not endpoint.on_this_host or not _alive(endpoint.pid or 0):
        raise NotRunning(
            f"the Simyard service of the home {home} (process {endpoint.pid}) is gone; "
            "start one with 'simyard serve --detach'",
            stale=True,
        )
    return endpoint


def _read_private(path: str) -> bytes:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise PermissionDenied(
            f"{path} cannot be trusted or read ({error.strerror}); it must be a plain file of "
            "yours: remove it, and restart the service"
        ) from None
    try:
        if sys.platform != "win32":
            facts = os.fstat(descriptor)
            if facts.st_mode & 0o170000 != 0o100000 or facts.st_uid != os.getuid():
                raise PermissionDenied(
                    f"{path} is not a plain file of yours, so it cannot be trusted; remove it, or "
                    "choose a --home of your own"
                )
            if facts.st_mode & 0o077:
                raise PermissionDenied(
                    f"{path} holds a token and others can reach it (mode "
                    f"{facts.st_mode & 0o777:04o}); run 'simyard stop', remove it, and start again"
                )
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


def _alive(pid: int) -> bool:
    if sys.platform == "win32":  # there os.kill(pid, 0) would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return pid > 0


def expected_proof(token: str, nonce: str, authority: str) -> str:
    """Return what only a server that knows the token can answer to `nonce`."""
    import hmac

    return hmac.digest(token.encode(), f"{nonce}\n{authority}".encode(), "sha256").hex()


def check_proof(endpoint: Endpoint, nonce: str, answer: Any) -> None:
    """Take over the facts of a server that proved itself; raise `PermissionDenied` else."""
    import hmac

    given = answer.get("proof") if isinstance(answer, dict) else None
    wanted = expected_proof(endpoint.token, nonce, endpoint.authority)
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), wanted.encode()):
        raise PermissionDenied(
            f"what answers at {endpoint.url} did not prove that it knows the token, so nothing was "
            "sent to it; the token is wrong, or that is not your Simyard service"
        )
    endpoint.host = answer.get("host") or endpoint.host
    endpoint.boot_id = answer.get("boot_id") or endpoint.boot_id
    endpoint.version = answer.get("version") or endpoint.version
