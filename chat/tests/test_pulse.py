"""What processes count of their answers, and what those who watch are told of all of them."""

import asyncio
import time
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from chat import pulse
from chat.pulse import Now, Pulse, Seen, Watch, together
from saas.local.ports import free_port
from tenants import bell


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def wire(pulse_: Pulse) -> dict[str, Any]:
    """Return a report as another process reads it."""
    read: dict[str, Any] = orjson.loads(orjson.dumps({str(key): row for key, row in pulse_.report().items()}))
    return read


def test_an_answer_is_counted_while_it_runs_and_for_a_minute() -> None:
    clock = Clock()
    counted = Pulse(clock=clock)
    with counted.beat(1) as beat:
        clock.now += 0.25
        beat.output()
        clock.now += 0.5
        beat.output()
        assert counted.report() == {1: (1, 1, 0, [250])}
    assert counted.report() == {1: (0, 1, 0, [250])}
    clock.now += 61
    assert (counted.report(), counted.report()) == ({}, {})


def test_a_failure_is_counted_where_the_answer_ends() -> None:
    clock = Clock()
    counted = Pulse(clock=clock)
    with counted.beat(1) as beat:
        clock.now += 90
        beat.failed = True
    assert counted.report() == {1: (0, 0, 1, [])}


def test_an_answer_that_breaks_runs_no_more() -> None:
    counted = Pulse(clock=Clock())
    with pytest.raises(ZeroDivisionError), counted.beat(1):
        _ = 1 / 0
    assert counted.report() == {1: (0, 1, 0, [])}


def test_only_the_last_first_tokens_are_kept() -> None:
    clock = Clock()
    counted = Pulse(clock=clock)
    for number in range(pulse.SAMPLES + 5):
        with counted.beat(1) as beat:
            clock.now += number / 1000
            beat.output()
    assert counted.report()[1][3] == list(range(5, pulse.SAMPLES + 5))


def test_processes_are_added_up_for_a_tenant_and_for_all() -> None:
    clock = Clock()
    one, other = Pulse(clock=clock), Pulse(clock=clock)
    for process, tenant_id, waited in ((one, 1, 0.1), (other, 1, 0.2), (other, 2, 0.6)):
        with process.beat(tenant_id) as beat:
            clock.now += waited
            beat.output()
            beat.failed = tenant_id == 2
    reports = [wire(one), wire(other)]
    assert together(reports, tenant_id=1) == Now(running=0, chats=2, failed=0, first_token_ms=150)
    assert together(reports, tenant_id=2) == Now(running=0, chats=1, failed=1, first_token_ms=600)
    assert together(reports, tenant_id=3) == Now(running=0, chats=0, failed=0, first_token_ms=None)
    assert together(reports, tenant_id=None) == Now(running=0, chats=3, failed=1, first_token_ms=200)


async def reading() -> list[Seen]:
    """Watch until there is a reading."""
    seen: list[Seen] = []
    watch = Watch()
    with watch.watched_by(seen.append):
        async with asyncio.timeout(10):
            while not seen:  # noqa: ASYNC110  readings come to a function, not to an event
                await asyncio.sleep(0.02)
    return seen


async def test_a_process_reports_and_one_that_died_is_left_out(settings: Any) -> None:
    tenant_id = 2**40 + int(time.time())
    old = {"at": time.time() - pulse.OLD_SECONDS - 1, "tenants": {str(tenant_id): [5, 5, 5, []]}}
    async with Redis.from_url(settings.REDIS_URL) as client:
        await client.hset(pulse._key(), "a-dead-process", orjson.dumps(old).decode())  # noqa: SLF001  as it is on the wire
    with pulse.beat(tenant_id):
        await asyncio.sleep(pulse.PERIOD + 0.5)
        [seen] = await reading()
        assert seen.now(tenant_id=tenant_id) == Now(running=1, chats=1, failed=0, first_token_ms=None)
    await pulse.close()
    [seen] = await reading()
    assert seen.now(tenant_id=tenant_id) == Now(running=0, chats=0, failed=0, first_token_ms=None)


async def test_the_bell_is_heard_by_those_it_is_rung_for(settings: Any) -> None:
    [before] = await reading()
    await asyncio.to_thread(bell.ring, [7, None])
    [after] = await reading()
    heard = {reader: before.notice(tenant_id=reader) != after.notice(tenant_id=reader) for reader in (7, None, 8)}
    assert heard == {7: True, None: True, 8: False}


async def test_while_redis_is_away_nobody_knows_and_nothing_breaks(settings: Any) -> None:
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"
    with pulse.beat(1) as beat:
        beat.output()
        await asyncio.sleep(pulse.PERIOD + 0.2)
    await asyncio.to_thread(bell.ring, [1])
    [seen] = await reading()
    assert (seen.now(tenant_id=1), seen.now(tenant_id=None), seen.notice(tenant_id=1)) == (None, None, "")
    await pulse.close()


async def test_nothing_is_read_while_nobody_watches(settings: Any) -> None:
    seen: list[Seen] = []
    watch = Watch()
    with watch.watched_by(seen.append):
        assert len(watch) == 1
    assert len(watch) == 0
    await asyncio.sleep(pulse.PERIOD + 0.2)
    told = len(seen)
    await asyncio.sleep(pulse.PERIOD + 0.2)
    assert len(seen) == told
