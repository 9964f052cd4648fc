"""Who may ask, from where, and with what: credentials, addresses, origins, the proof.

Refused unless allowed. Secrets live in memory only, expire, are bounded in number, and
are kept as digests, so that neither a dump of the tables nor the time of a comparison
tells one. It must not know routes, jobs or the home.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from ..errors import Forbidden, InvalidInput, PermissionDenied

CODE_SECONDS = 120.0
SESSION_SECONDS = 12 * 3600.0
TICKET_SECONDS = 30.0
MOST_KEPT = 200

_NONCE = re.compile(r"[A-Za-z0-9_-]{16,128}\Z")
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?\Z", re.ASCII)
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
WILDCARDS = frozenset({"0.0.0.0", "::", "[::]", ""})
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Scope(str, Enum):
    """What a route asks for, and what a credential gives."""

    OPEN = "open"
    """No credential: holds no data of the owner."""
    READ = "read"
    FULL = "full"

    def allows(self, wanted: Scope) -> bool:
        """True where a credential of this scope is enough for a route of scope `wanted`."""
        order = (Scope.OPEN, Scope.READ, Scope.FULL)
        return order.index(self) >= order.index(wanted)


@dataclass(frozen=True, slots=True)
class Issued:
    """A secret that was just made, and until when it is good (seconds since the epoch)."""

    secret: str
    scope: Scope
    expires_at: float


class _Kept:
    """Secrets of one kind: by digest, with scope and expiry, the oldest dropped when full."""

    def __init__(self, lifetime: float, most: int, clock: Callable[[], float]) -> None:
        self._lifetime = lifetime
        self._most = most
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[Scope, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def issue(self, scope: Scope) -> Issued:
        self._drop_expired()
        while len(self._known) >= self._most:
            self._known.popitem(last=False)
        secret = secrets.token_urlsafe(32)
        self._known[_digest(secret)] = (scope, self._clock() + self._lifetime)
        return Issued(secret, scope, time.time() + self._lifetime)

    def scope_of(self, secret: str) -> Scope | None:
        found = self._known.get(_digest(secret))
        return None if found is None or found[1] <= self._clock() else found[0]

    def redeem(self, secret: str) -> Scope | None:
        scope = self.scope_of(secret)
        self._known.pop(_digest(secret), None)
        return scope

    def _drop_expired(self) -> None:
        now = self._clock()
        # All live equally long, so the oldest expire first.
        while self._known and next(iter(self._known.values()))[1] <= now:
            self._known.popitem(last=False)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


class Credentials:
    """The token of the service, and the codes, sessions and tickets derived from it."""

    def __init__(
        self, token: str, *, clock: Callable[[], float] = time.monotonic, most: int = MOST_KEPT
    ) -> None:
        self._token = token.encode()
        self._digest = _digest(token)
        self._codes = _Kept(CODE_SECONDS, most, clock)
        self._sessions = _Kept(SESSION_SECONDS, most, clock)
        self._tickets = _Kept(TICKET_SECONDS, most, clock)

    def __repr__(self) -> str:
        return "Credentials(…)"

    def check(self, authorization: str | None) -> Scope | None:
        """Return what an ``Authorization`` header gives; None where it gives nothing."""
        scheme, _, secret = (authorization or "").partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            return None
        if hmac.compare_digest(_digest(secret), self._digest):
            return Scope.FULL
        return self._sessions.scope_of(secret)

    def new_code(self, scope: Scope) -> Issued:
        """Make a one-time code that the dashboard exchanges for a session."""
        return self._codes.issue(scope)

    def exchange(self, code: str) -> Issued:
        """Turn a code into a session token, once. Raises `PermissionDenied`."""
        scope = self._codes.redeem(code)
        if scope is None:
            raise PermissionDenied(
                "this login code is unknown, used or expired; open the dashboard again with "
                "'simyard dashboard'"
            )
        return self._sessions.issue(scope)

    def new_ticket(self, scope: Scope) -> Issued:
        """Make a one-use ticket for opening one WebSocket."""
        return self._tickets.issue(scope)

    def redeem_ticket(self, ticket: str) -> Scope | None:
        """Use a ticket up; None where it is unknown, used or expired."""
        return self._tickets.redeem(ticket)

    def prove(self, nonce: str, authority: str) -> str:
        """Return what only a holder of the token can answer to `nonce` at this address.

        The address is part of it, so that the answer of the real service is of no use to
        somebody who listens at another port and passes the question on.
        """
        if not _NONCE.match(nonce):
            raise InvalidInput("'nonce' must be 16 to 128 letters, digits, '-' or '_'")
        message = f"{nonce}\n{authority}".encode()
        return hmac.new(self._token, message, hashlib.sha256).hexdigest()


class Addresses:
    """The names and origins by which the service may be addressed; everything else is refused."""

    def __init__(self, *, port: int, names: Iterable[str] = (), scheme: str = "http") -> None:
        self._allowed: set[str] = set()
        for name in (*LOOPBACK_NAMES, *names):
            self._allow(name.strip().lower(), port, scheme)
        self._origins = frozenset(f"{scheme}://{authority}" for authority in self._allowed)

    def _allow(self, name: str, port: int, scheme: str) -> None:
        if name in WILDCARDS:
            return
        if name.count(":") > 1 and not name.startswith("["):
            name = f"[{name}]"
        match = _AUTHORITY.match(name)
        if match is None or match[1].endswith("."):
            raise InvalidInput(f"{name!r} is not a host name by which the service can be addressed")
        if match[2] is not None:
            self._allowed.add(name)
            return
        self._allowed.add(f"{name}:{port}")
        if port == _DEFAULT_PORTS[scheme]:
            self._allowed.add(name)

    @property
    def authorities(self) -> frozenset[str]:
        """All allowed values of the Host header."""
        return frozenset(self._allowed)

    def check_host(self, hosts: list[str], target: str) -> str:
        """Return the one allowed Host header of a request; raises `Forbidden`.

        `target` is the request target as it was sent: an absolute one names a host too,
        and so is refused.
        """
        if len(hosts) == 1 and target.startswith("/") and hosts[0].lower() in self._allowed:
            return hosts[0].lower()
        raise Forbidden(
            "this service does not answer to that host name; use "
            "http://127.0.0.1 or http://localhost with its port, or name the host in the "
            "setting 'allowed_hosts'"
        )

    def check_origin(self, origins: list[str], fetch_site: str | None, *, navigation: bool) -> None:
        """Raise `Forbidden` for a request that a page of another origin caused.

        `navigation`: a person follows a link to a page that holds no data; it may come
        from anywhere, since the page that holds the link learns nothing from it.
        """
        if any(origin.lower() not in self._origins for origin in origins) or len(origins) > 1:
            raise Forbidden("requests from pages of another origin are refused")
        if fetch_site is not None and fetch_site not in ("same-origin", "none") and not navigation:
            raise Forbidden("requests from pages of another site are refused")
