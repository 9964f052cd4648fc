"""Credentials expire, are used once where they should be, and addresses are exact."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from simyard.errors import Forbidden, InvalidInput, PermissionDenied
from simyard.service import security
from simyard.service.security import Addresses, Credentials, Scope

TOKEN = "a-token-of-forty-characters-0123456789ab"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credentials(clock: Clock) -> Credentials:
    return Credentials(TOKEN, clock=clock, most=5)


def test_only_the_token_itself_gives_everything(credentials: Credentials) -> None:
    assert credentials.check(f"Bearer {TOKEN}") is Scope.FULL
    assert credentials.check(f"bearer {TOKEN}") is Scope.FULL
    for wrong in (None, "", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}"):
        assert credentials.check(wrong) is None


def test_comparison_is_left_to_what_takes_constant_time(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    compare = hmac.compare_digest

    def noted(given: bytes, wanted: bytes) -> bool:
        compared.append((given, wanted))
        return compare(given, wanted)

    monkeypatch.setattr("simyard.service.security.hmac.compare_digest", noted)
    credentials.check("Bearer short")
    credentials.check("Bearer " + "x" * 10_000)
    assert [len(given) == len(wanted) == 32 for given, wanted in compared] == [True, True]


def test_a_code_is_exchanged_once_and_in_time(credentials: Credentials, clock: Clock) -> None:
    code = credentials.new_code(Scope.READ).secret
    session = credentials.exchange(code)
    assert credentials.check(f"Bearer {session.secret}") is Scope.READ
    with pytest.raises(PermissionDenied):
        credentials.exchange(code)
    late = credentials.new_code(Scope.FULL).secret
    clock.now += security.CODE_SECONDS
    with pytest.raises(PermissionDenied):
        credentials.exchange(late)


def test_a_session_ends(credentials: Credentials, clock: Clock) -> None:
    session = credentials.exchange(credentials.new_code(Scope.FULL).secret)
    clock.now += security.SESSION_SECONDS - 1
    assert credentials.check(f"Bearer {session.secret}") is Scope.FULL
    clock.now += 1
    assert credentials.check(f"Bearer {session.secret}") is None


def test_a_ticket_is_good_once_and_for_half_a_minute(
    credentials: Credentials, clock: Clock
) -> None:
    ticket = credentials.new_ticket(Scope.READ).secret
    assert credentials.redeem_ticket(ticket) is Scope.READ
    assert credentials.redeem_ticket(ticket) is None
    late = credentials.new_ticket(Scope.READ).secret
    clock.now += 30
    assert credentials.redeem_ticket(late) is None
    assert credentials.redeem_ticket("") is None


def test_one_kind_of_secret_is_not_another(credentials: Credentials) -> None:
    code = credentials.new_code(Scope.FULL).secret
    ticket = credentials.new_ticket(Scope.FULL).secret
    assert credentials.check(f"Bearer {code}") is credentials.check(f"Bearer {ticket}") is None
    assert credentials.redeem_ticket(code) is None and credentials.redeem_ticket(TOKEN) is None
    with pytest.raises(PermissionDenied):
        credentials.exchange(ticket)


def test_secrets_are_bounded_in_number_and_never_shown(credentials: Credentials) -> None:
    tickets = [credentials.new_ticket(Scope.READ).secret for _ in range(20)]
    assert len(credentials._tickets) == 5
    assert credentials.redeem_ticket(tickets[0]) is None
    assert credentials.redeem_ticket(tickets[-1]) is Scope.READ
    assert TOKEN not in repr(credentials)
    assert all(ticket.encode() not in credentials._tickets._known for ticket in tickets)


def test_a_wider_scope_holds_the_narrower_ones() -> None:
    assert Scope.FULL.allows(Scope.READ) and Scope.FULL.allows(Scope.FULL)
    assert Scope.READ.allows(Scope.READ) and not Scope.READ.allows(Scope.FULL)


def test_the_proof_is_of_nonce_and_address(credentials: Credentials) -> None:
    nonce = "n" * 32
    expected = hmac.new(TOKEN.encode(), f"{nonce}\n127.0.0.1:8080".encode(), hashlib.sha256)
    assert credentials.prove(nonce, "127.0.0.1:8080") == expected.hexdigest()
    assert credentials.prove(nonce, "127.0.0.1:8081") != expected.hexdigest()
    for wrong in ("", "short", "x" * 129, "a b" * 10, "n" * 31 + "\n"):
        with pytest.raises(InvalidInput):
            credentials.prove(wrong, "127.0.0.1:8080")


def test_the_allowed_authorities_are_exact() -> None:
    addresses = Addresses(port=8080, names=["Sim.Example", "proxy.example:443", "0.0.0.0", "::"])
    assert addresses.authorities == {
        "127.0.0.1:8080",
        "localhost:8080",
        "[::1]:8080",
        "sim.example:8080",
        "proxy.example:443",
    }
    assert "localhost" in Addresses(port=443, scheme="https").authorities
    assert "localhost" not in Addresses(port=80, scheme="https").authorities
    assert "[fe80::1]:8080" in Addresses(port=8080, names=["fe80::1"]).authorities
    for wrong in ("a b", "user@host", "host/path", "host.", "*"):
        with pytest.raises(InvalidInput):
            Addresses(port=8080, names=[wrong])


def test_hosts_and_origins_are_refused_unless_they_are_ours() -> None:
    addresses = Addresses(port=8080)
    assert addresses.check_host(["LOCALHOST:8080"], "/api/jobs") == "localhost:8080"
    for hosts, target in (
        ([], "/"),
        (["localhost:8080", "localhost:8080"], "/"),
        (["localhost:8080"], "http://localhost:8080/"),
        (["localhost:8080"], "*"),
        (["localhost"], "/"),
    ):
        with pytest.raises(Forbidden):
            addresses.check_host(hosts, target)
    addresses.check_origin([], None, navigation=False)
    addresses.check_origin(["http://localhost:8080"], "same-origin", navigation=False)
    addresses.check_origin([], "cross-site", navigation=True)
    for origins, site, navigation in (
        (["null"], None, False),
        (["https://localhost:8080"], None, False),
        (["http://localhost:8080", "http://localhost:8080"], None, False),
        (["http://evil.example"], "cross-site", True),
        ([], "cross-site", False),
        ([], "same-site", False),
    ):
        with pytest.raises(Forbidden):
            addresses.check_origin(origins, site, navigation=navigation)
