"""Finding the service of a home: its address, or one that is on its way, or a new one.

Standard library only: this is on the shell's submit path. Knows where a service may be
named (arguments, variables, the endpoint file); the conversation itself is `wire`'s.
"""

from __future__ import annotations

import os

from ..errors import NotRunning, PermissionDenied, ServiceUnavailable
from . import handover
from .endpoint import Endpoint, find_endpoint, home_path
from .wire import ANSWER_TIMEOUT, Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def connect(
    home: str | os.PathLike[str] | None = None,
    *,
    url: str | None = None,
    token: str | None = None,
    host: str | None = None,
    port: int | str | None = None,
    start: bool = False,
    flags: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
    timeout: float = ANSWER_TIMEOUT,
) -> Connection:
    """Return a proven connection to the service of `home`, or to the one at an address given.

    What is given beats the variables `SIMYARD_URL`, `SIMYARD_TOKEN`, `SIMYARD_HOST` and
    `SIMYARD_PORT`, which beat the endpoint file. Without a token of its own, an address must
    be that of the home's service. `start` starts a detached service where the home has
    none, telling `say` so in one line; `flags` are passed to its 'simyard serve'.

    Raises `NotRunning`, `PermissionDenied`, `HomeInUse`, `InvalidInput`, `ServiceUnavailable`.
    """
    folder = home_path(home)
    address = address_given(home, url=url, host=host, port=port)
    token = token or os.environ.get("SIMYARD_TOKEN")
    if address and token:
        connection = Connection(Endpoint(address, token), timeout=timeout)
        connection.prove()
        return connection
    start = start and not url
    if host or port:
        flags = [
            *flags,
            *(["--host", host] if host else []),
            *(["--port", str(port)] if port else []),
        ]

    def find() -> Endpoint:
        return locate(folder, start=start, flags=flags, say=say)

    connection = Connection(find(), find=find, timeout=timeout)
    if address and _same_place(address) != _same_place(connection.endpoint.url):
        raise PermissionDenied(
            f"the service of the home {folder} answers at {connection.endpoint.url}, not at "
            f"{address}; for another service give its --token too"
        )
    try:
        connection.prove()
    except (NotRunning, PermissionDenied, ServiceUnavailable):
        # The process id was given to another program: nobody serves this home.
        connection.endpoint = locate(folder, start=start, flags=flags, say=say, distrust=True)
        connection.prove()
    return connection


def address_given(
    home: object, *, url: str | None, host: str | None, port: int | str | None
) -> str | None:
    """Return the URL that a person named, by argument or variable; None for the home's own."""
    if not (url or host or port or home):
        url = os.environ.get("SIMYARD_URL")
        host, port = os.environ.get("SIMYARD_HOST"), os.environ.get("SIMYARD_PORT")
        port = None if port == "0" else port  # for a service: any free one
    if url:
        return url
    if not (host or port):
        return None
    host = host or "127.0.0.1"
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return Endpoint(f"http://{shown}:{port or 8080}", "").url


def _same_place(url: str) -> tuple[str, str, int]:
    scheme, host, port = Endpoint(url, "").address()
    return scheme, "127.0.0.1" if host in ("localhost", "0.0.0.0") else host, port


def locate(
    home: str,
    *,
    start: bool = False,
    flags: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
    distrust: bool = False,
) -> Endpoint:
    """Find the service of `home`; wait for one that is on its way, `start` one where there is none.

    With `distrust` the endpoint file has proved wrong, whatever it says.
    """
    try:
        if distrust:
            raise NotRunning(
                f"the service of the home {home} is gone: what its endpoint file names does "
                "not answer as Simyard; start one with 'simyard serve --detach'",
                stale=True,
            )
        return find_endpoint(home)
    except NotRunning as missing:
        if start:
            return handover.start_detached(home, flags=flags, say=say)
        found = handover.wait_for_handover(home)
        if found is None:
            raise missing from None
        return found


def start_detached(
    home: str | os.PathLike[str] | None = None,
    *,
    flags: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> Endpoint:
    """Start a detached service for `home`, or return the one that is there already."""
    return handover.start_detached(home_path(home), flags=flags, say=say)
