"""A store that cannot be trusted is refused, named, and left as it was."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from store_samples import make_job, open_store, submission

from simyard.errors import PermissionDenied, SimyardError, StoreUnreadable
from simyard.service.store.batch import Batch

pytestmark = pytest.mark.faults

PAGE = 4096


def a_store_with_jobs(path: Path, jobs: int = 2000) -> None:
    store = open_store(path)
    asyncio.run(store.apply(submission(*(make_job(i) for i in range(1, jobs + 1)))))
    store.close()


def empty(content: bytes) -> bytes:
    return b""


def short(content: bytes) -> bytes:
    return content[:50]


def garbage(content: bytes) -> bytes:
    return b"\xde\xad\xbe\xef" * (len(content) // 4)


def text(content: bytes) -> bytes:
    return b"this is not a store\n" * 100


def truncated_within_a_page(content: bytes) -> bytes:
    return content[: len(content) // 2 + 100]


def truncated_after_a_page(content: bytes) -> bytes:
    return content[: len(content) // PAGE // 2 * PAGE]


def header_flipped(content: bytes) -> bytes:
    return b"sqlite" + content[6:]


def schema_page_overwritten(content: bytes) -> bytes:
    return content[:100] + b"\xff" * (PAGE - 100) + content[PAGE:]


def pages_zeroed(content: bytes) -> bytes:
    middle = len(content) // PAGE // 2 * PAGE
    return content[:middle] + bytes(8 * PAGE) + content[middle + 8 * PAGE :]


def of_another_program(content: bytes) -> bytes:
    return content[:68] + bytes(4) + content[72:]


@pytest.mark.parametrize(
    "damage",
    [
        empty,
        short,
        garbage,
        text,
        truncated_within_a_page,
        truncated_after_a_page,
        header_flipped,
        schema_page_overwritten,
        pages_zeroed,
        of_another_program,
    ],
)
@pytest.mark.parametrize("expect_new", [True, False])
def test_a_damaged_store_is_refused_byte_for_byte_untouched(
    tmp_path: Path, damage: Callable[[bytes], bytes], expect_new: bool
) -> None:
    path = tmp_path / "store.db"
    a_store_with_jobs(path)
    content = damage(path.read_bytes())
    path.write_bytes(content)
    with pytest.raises(StoreUnreadable, match="Restore a backup") as refused:
        open_store(path, expect_new=expect_new)
    assert str(path) in refused.value.message
    assert "move it away" in refused.value.message
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["store.db"]


def test_a_damaged_store_with_a_log_is_left_with_its_log(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    a_store_with_jobs(path)
    store = open_store(path)
    asyncio.run(store.apply(submission(*(make_job(i) for i in range(3000, 3010)))))
    log = Path(f"{path}-wal").read_bytes()
    store.close()
    content = pages_zeroed(path.read_bytes())
    path.write_bytes(content)
    Path(f"{path}-wal").write_bytes(log)
    with pytest.raises(StoreUnreadable):
        open_store(path)
    assert path.read_bytes() == content
    assert Path(f"{path}-wal").read_bytes() == log


def test_a_torn_log_loses_only_what_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    live = tmp_path / "live.db"
    store = open_store(live)
    for number in range(1, 11):
        asyncio.run(store.apply(submission(make_job(number))))
    path.write_bytes(live.read_bytes())
    Path(f"{path}-wal").write_bytes(Path(f"{live}-wal").read_bytes()[:-100])
    store.close()
    again = open_store(path)
    found = [job.id for job in again.load_active()]
    again.close()
    assert found == list(range(1, 10))


def test_a_missing_store_with_jobs_beside_it_is_not_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with pytest.raises(StoreUnreadable, match="is missing"):
        open_store(path, expect_new=False)
    assert os.listdir(tmp_path) == []
    path.symlink_to(tmp_path / "gone" / "store.db")
    with pytest.raises(StoreUnreadable, match="link"):
        open_store(path)


def test_a_folder_in_the_place_of_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.db").mkdir()
    with pytest.raises(StoreUnreadable, match=r"store\.db"):
        open_store(tmp_path / "store.db")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read and write everything")
@pytest.mark.parametrize("mode", [0o000, 0o400])
def test_a_store_without_permission_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "store.db"
    a_store_with_jobs(path, 1)
    path.chmod(mode)
    with pytest.raises((StoreUnreadable, PermissionDenied), match="permission"):
        open_store(path)


@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_a_store_that_is_moved_away_in_use_is_not_written_on(
    tmp_path: Path, how: str
) -> None:
    path = tmp_path / "store.db"
    store = open_store(path)
    await store.apply(submission(make_job(1)))
    told: list[SimyardError] = []
    store.on_fatal = told.append
    os.rename(path, tmp_path / "away.db")
    if how == "replaced":
        open_store(tmp_path / "other.db").close()
        os.rename(tmp_path / "other.db", path)
    with pytest.raises(StoreUnreadable, match="removed or replaced"):
        await store.apply(submission(make_job(2)))
    with pytest.raises(StoreUnreadable):
        await store.apply(Batch(meta={"a": "b"}))
    assert len(told) == 1
    store.close()
