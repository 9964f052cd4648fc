"""Files that clients send ahead: whole or in pieces, checked, bounded, swept away in the end."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from pathlib import Path

import pytest

from simyard.errors import Conflict, InvalidInput, StorageFull, TooLarge
from simyard.service.uploads import Uploads

TEXT = bytes(range(256)) * 40
DIGEST = hashlib.sha256(TEXT).hexdigest()
MiB = 1 << 20


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "uploads", most=MiB, keep=100.0)


def send(uploads: Uploads, text: bytes = TEXT, offset: int = 0, total: int | None = None) -> bool:
    digest = hashlib.sha256(TEXT).hexdigest()
    receiving = uploads.begin(digest, offset, len(TEXT) if total is None else total)
    try:
        receiving.write(text)
        return receiving.finish().complete
    finally:
        receiving.close()


def test_a_whole_file_is_there_under_its_checksum_for_its_owner_alone(uploads: Uploads) -> None:
    before = os.umask(0)
    try:
        assert send(uploads)
    finally:
        os.umask(before)
    path = uploads.path(DIGEST)
    assert path.read_bytes() == TEXT and os.listdir(uploads.folder) == [DIGEST]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(uploads.folder.stat().st_mode) == 0o700
    assert uploads.missing([DIGEST, "0" * 64]) == ["0" * 64]


def test_a_file_sent_in_pieces_is_gone_on_with_also_by_another_process(uploads: Uploads) -> None:
    assert not send(uploads, TEXT[:1000])
    there = uploads.received(DIGEST)
    assert there is not None and (there.size, there.complete) == (1000, False)
    assert uploads.missing([DIGEST]) == [DIGEST], "half of it is nothing that a job can use"
    later = Uploads(uploads.folder, most=MiB, keep=100.0)
    assert not send(later, TEXT[1000:5000], 1000)
    assert send(later, TEXT[4000:], 4000), "what was sent twice is taken once"
    assert later.path(DIGEST).read_bytes() == TEXT


def test_a_gap_is_refused_with_where_to_go_on(uploads: Uploads) -> None:
    send(uploads, TEXT[:1000])
    with pytest.raises(Conflict, match="go on at 1000") as refusal:
        send(uploads, TEXT[2000:], 2000)
    assert refusal.value.details["received"] == 1000
    assert send(uploads, TEXT[1000:], 1000)


@pytest.mark.parametrize("first", [TEXT[:1000], b"x" * 1000])
def test_what_does_not_have_its_checksum_is_not_kept(uploads: Uploads, first: bytes) -> None:
    wrong = first != TEXT[:1000]
    send(uploads, first)
    with pytest.raises(InvalidInput, match="SHA-256"):
        send(uploads, TEXT[1000:] if wrong else b"y" * (len(TEXT) - 1000), 1000)
    assert os.listdir(uploads.folder) == []
    assert send(uploads), "and it can be sent again"


def test_the_bounds_hold_for_what_is_announced_and_for_what_comes(uploads: Uploads) -> None:
    with pytest.raises(TooLarge, match="max_upload"):
        uploads.begin(DIGEST, 0, MiB + 1)
    assert not uploads.folder.exists()
    receiving = uploads.begin(DIGEST, 0, None)
    for _ in range(MiB // len(TEXT)):
        receiving.write(TEXT)
    with pytest.raises(TooLarge, match="max_upload"):
        receiving.write(TEXT)
    receiving.close()
    assert (uploads.folder / f"{DIGEST}.part").stat().st_size <= MiB
    with pytest.raises(TooLarge, match="announced"):
        send(uploads, TEXT + b"x")
    with pytest.raises(TooLarge, match="switched off"):
        Uploads(uploads.folder, most=0, keep=1).begin(DIGEST, 0, 1)


def test_a_full_disk_is_said_to_be_full(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageFull, match="min_free_disk"):
        Uploads(uploads.folder, most=MiB, keep=1, reserve=1 << 60).begin(DIGEST, 0, 10)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    receiving = uploads.begin(DIGEST, 0, len(TEXT))
    with monkeypatch.context() as patched:
        patched.setattr("simyard.service.uploads.os.write", full)
        with pytest.raises(StorageFull):
            receiving.write(TEXT)
    receiving.close()
    assert send(uploads), "and goes on when there is room again"


def test_two_clients_do_not_write_into_one_file(uploads: Uploads) -> None:
    first = uploads.begin(DIGEST, 0, len(TEXT))
    with pytest.raises(Conflict, match="another client"):
        uploads.begin(DIGEST, 0, len(TEXT))
    first.close()
    assert send(uploads)


@pytest.mark.parametrize(
    "name",
    ["", "x", "../" + "0" * 61, "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n", "0" * 63 + "/"],
)
def test_only_a_checksum_is_a_name(uploads: Uploads, name: str) -> None:
    for call in (uploads.path, uploads.received, lambda text: uploads.begin(text, 0, 1)):
        with pytest.raises(InvalidInput, match="SHA-256"):
            call(name)


def test_a_link_or_a_folder_in_the_place_is_not_written_through(uploads: Uploads) -> None:
    uploads.folder.mkdir()
    victim = uploads.folder.parent / "victim"
    victim.write_text("mine")
    part = uploads.folder / f"{DIGEST}.part"
    part.symlink_to(victim)
    with pytest.raises(Conflict):
        send(uploads)
    part.unlink()
    os.mkfifo(part)
    with pytest.raises(Conflict, match="regular file"):
        send(uploads)
    uploads.path(DIGEST).symlink_to(victim)
    assert uploads.missing([DIGEST]) == [DIGEST]
    assert victim.read_text() == "mine"


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_what_nobody_needs_is_removed_after_its_time(uploads: Uploads) -> None:
    send(uploads)
    part = uploads.folder / f"{'1' * 64}.part"
    part.write_bytes(b"half")
    other = uploads.folder / "notes.txt"
    other.write_text("not ours")
    for path in (uploads.path(DIGEST), part, other):
        age(path, 99)
    assert uploads.sweep(()) == 0
    for path in (uploads.path(DIGEST), part, other):
        age(path, 101)
    assert uploads.sweep({DIGEST}) == 1 and not part.exists()
    assert uploads.sweep(()) == 0, "the time begins anew when a job has needed it"
    age(uploads.path(DIGEST), 101)
    assert uploads.missing([DIGEST]) == [], "and when one is about to"
    assert uploads.sweep(()) == 0
    age(uploads.path(DIGEST), 101)
    assert uploads.sweep(()) == 1
    assert os.listdir(uploads.folder) == ["notes.txt"]


def test_what_is_just_being_received_is_not_removed(uploads: Uploads) -> None:
    receiving = uploads.begin(DIGEST, 0, len(TEXT))
    age(uploads.folder / f"{DIGEST}.part", 1000)
    assert uploads.sweep(()) == 0
    receiving.write(TEXT)
    assert receiving.finish().complete
    receiving.close()


def test_nothing_is_swept_where_nothing_was_ever_sent(uploads: Uploads) -> None:
    assert uploads.sweep(()) == 0 and not uploads.folder.exists()
