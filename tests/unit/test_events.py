"""Events reach every listener once, in order, and nobody who is slow costs anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from simyard.errors import Gone, UsageError
from simyard.service import events as events_module
from simyard.service import views
from simyard.service.events import EventLog, Line, Resync
from simyard.service.model import Event


def event(seq: int, job_id: int | None = None) -> Event:
    return Event(seq=seq, time=1.0, type="job.queued", job_id=job_id, data={"n": seq})


class History:
    """What a store keeps of the events, and how often it was asked."""

    def __init__(self, *kept: Event, oldest: int = 0) -> None:
        self.kept = list(kept)
        self.oldest = oldest
        self.asked = 0

    async def fetch(self, since: int, limit: int, job_id: int | None) -> Sequence[Event]:
        self.asked += 1
        await asyncio.sleep(0)
        if since < self.oldest:
            raise Gone("too old")
        found = [e for e in self.kept if e.seq > since and job_id in (None, e.job_id)]
        return found[:limit]


async def taken(subscription: events_module.Subscription, count: int) -> list[int | Resync]:
    found: list[int | Resync] = []
    while len(found) < count:
        items = await asyncio.wait_for(subscription.take(), 5)
        found += [item if isinstance(item, Resync) else item.event.seq for item in items]
    return found


async def test_what_is_published_is_taken_in_order() -> None:
    log = EventLog(History().fetch)
    subscription = log.subscribe()
    log.publish([event(1), event(2)])
    log.publish([event(5)])
    assert await taken(subscription, 3) == [1, 2, 5]
    assert log.latest == 5


async def test_a_subscription_to_one_job_hears_of_no_other() -> None:
    log = EventLog(History().fetch)
    one, everything = log.subscribe(job_id=7), log.subscribe()
    log.publish([event(1, 7), event(2, 8), event(3, None), event(4, 7)])
    assert await taken(one, 2) == [1, 4]
    assert await taken(everything, 4) == [1, 2, 3, 4]


async def test_an_event_is_encoded_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def counted(document: object) -> bytes:
        nonlocal count
        count += 1
        return views.encode(document)

    monkeypatch.setattr(events_module, "encode", counted)
    log = EventLog(History().fetch)
    subscriptions = [log.subscribe() for _ in range(10)]
    log.publish([event(1, 3)])
    texts = set()
    for subscription in subscriptions:
        (line,) = await subscription.take()
        assert isinstance(line, Line)
        texts.add(line.text)
    assert count == 1
    assert texts == {
        '{"seq":1,"time":"1970-01-01T00:00:01.000Z","type":"job.queued","job_id":"3","data":{"n":1}}'
    }


async def test_a_reader_that_is_too_slow_is_told_to_load_again_and_goes_on() -> None:
    log = EventLog(History().fetch)
    slow, quick = log.subscribe(capacity=3), log.subscribe(capacity=100)
    log.publish([event(seq) for seq in range(1, 5)])
    log.publish([event(5), event(6)])
    assert await taken(slow, 3) == [Resync(4), 5, 6]
    assert slow.overruns == 1
    assert await taken(quick, 6) == [1, 2, 3, 4, 5, 6]


async def test_the_queue_of_a_reader_that_never_reads_stays_bounded() -> None:
    log = EventLog(History().fetch, recent=10)
    stuck = log.subscribe(capacity=50)
    log.publish(event(seq) for seq in range(1, 10_001))
    assert len(stuck._queue) <= 50 and len(log._recent) == 10
    first, *rest = await taken(stuck, 1)
    assert isinstance(first, Resync)
    assert rest == list(range(first.seq + 1, 10_001)), "nothing is missing behind the mark"


async def test_what_came_before_is_replayed_then_what_comes_without_gap() -> None:
    history = History(*(event(seq) for seq in range(1, 1201)))
    log = EventLog(history.fetch, latest=1200)
    subscription = log.subscribe(since=100)
    for seq in range(1201, 1211):
        history.kept.append(event(seq))
        log.publish([event(seq)])
    assert await taken(subscription, 1110) == list(range(101, 1211))
    assert history.asked > 2, "in pages"


async def test_a_replay_of_one_job() -> None:
    history = History(*(event(seq, seq % 3) for seq in range(1, 31)))
    log = EventLog(history.fetch, latest=30)
    subscription = log.subscribe(since=0, job_id=1)
    log.publish([event(31, 1), event(32, 2)])
    assert await taken(subscription, 11) == [*range(1, 30, 3), 31]


async def test_recent_events_are_replayed_without_asking_the_store() -> None:
    history = History()
    log = EventLog(history.fetch, recent=5)
    log.publish([event(seq) for seq in (2, 3, 5, 8, 13, 21)])
    for since, expected in ((2, [3, 5, 8, 13, 21]), (4, [5, 8, 13, 21]), (13, [21])):
        assert await taken(log.subscribe(since=since), len(expected)) == expected
    assert history.asked == 0
    history.kept = [event(seq) for seq in (2, 3, 5, 8, 13, 21)]
    assert await taken(log.subscribe(since=1), 6) == [2, 3, 5, 8, 13, 21]
    assert history.asked > 0


@pytest.mark.parametrize("since", [3, 99])
async def test_what_is_not_kept_any_longer_or_never_was_is_gone(since: int) -> None:
    history = History(*(event(seq) for seq in range(10, 21)), oldest=9)
    log = EventLog(history.fetch, latest=20)
    with pytest.raises(Gone):
        await log.subscribe(since=since).ready()
    await log.subscribe(since=9).ready()
    await log.subscribe(since=20).ready()


async def test_a_reader_overrun_during_its_replay_is_spared_the_rest_of_it() -> None:
    history = History(*(event(seq) for seq in range(1, 2001)))
    log = EventLog(history.fetch, latest=2000)
    subscription = log.subscribe(since=0, capacity=2)
    await subscription.take()
    log.publish([event(seq) for seq in range(2001, 2005)])
    assert await taken(subscription, 2) == [Resync(2003), 2004]


async def test_iterating_gives_events_and_ends_with_the_log() -> None:
    log = EventLog(History().fetch)
    subscription = log.subscribe()
    log.publish([event(1), event(2)])
    log.close()
    assert [item.seq async for item in subscription] == [1, 2]
    with pytest.raises(UsageError):
        log.subscribe()


async def test_a_closed_subscription_is_forgotten() -> None:
    log = EventLog(History().fetch)
    subscriptions = [log.subscribe(), log.subscribe(job_id=4)]
    assert log.subscribers == 2
    waiting = asyncio.ensure_future(subscriptions[0].take())
    await asyncio.sleep(0)
    for subscription in subscriptions:
        subscription.close()
        subscription.close()
    assert log.subscribers == 0 and not log._by_job
    assert await asyncio.wait_for(waiting, 5) == []


async def test_taking_can_be_given_up_without_losing_anything() -> None:
    log = EventLog(History().fetch)
    subscription = log.subscribe()
    waiting = asyncio.ensure_future(subscription.take())
    await asyncio.sleep(0)
    log.publish([event(1)])
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    log.publish([event(2)])
    assert await taken(subscription, 2) == [1, 2]


async def test_what_is_committed_but_not_yet_told_comes_once() -> None:
    history = History(*(event(seq) for seq in range(1, 13)))
    log = EventLog(history.fetch, latest=10)
    subscription = log.subscribe(since=5)
    first = await taken(subscription, 5)
    log.publish([event(11), event(12)])
    assert first + await taken(subscription, 2) == [6, 7, 8, 9, 10, 11, 12]
