"""Boards of several processes over the real Redis: what one learns the others know, and one that is away is missed."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from django.conf import settings
from redis.asyncio import Redis

from chat.events import Failed, FailureKind
from chat.upstream.base import Limits, UpstreamTarget
from chat.upstream.health import Board, Call, State, health_of
from chat.upstream.sharing import Sharing, read_reports, reports_key, trial_key
from tests.factories import unique
from tests.servers import free_port

ILL = Failed(FailureKind.OVERLOAD, status=503)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Board, Board]]:
    """Two processes' boards."""
    boards = Board(), Board()
    sharings = [Sharing(board, settings.REDIS_URL) for board in boards]
    for sharing in sharings:
        sharing.keep()
        sharing.keep()
    yield boards
    for sharing in sharings:
        await sharing.close()


def account(**limits: int) -> UpstreamTarget:
    return UpstreamTarget(name=unique("account"), base_url="", model="m", limits=Limits(**limits))


async def fail(board: Board, target: UpstreamTarget, failed: Failed, count: int = 1) -> None:
    for _ in range(count):
        call = await board.admit(target)
        assert isinstance(call, Call)
        with call:
            call.fail(failed)


async def until(check: Callable[[], bool]) -> None:
    """Wait until something is so."""
    for _ in range(500):
        if check():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come to be so")


def state_at(board: Board, target: UpstreamTarget) -> State | None:
    report = board.report().get(target.name)
    return health_of([report], now=board.now()).state if report else None


async def test_a_breaker_that_one_process_opens_is_open_for_all(pair: tuple[Board, Board]) -> None:
    here, there = pair
    target = account()
    await fail(here, target, ILL, 10)
    await until(lambda: state_at(there, target) == State.OPEN)

    assert await there.admit(target) == "its breaker is open"


async def test_calls_of_another_process_count_for_the_limit(pair: tuple[Board, Board]) -> None:
    here, there = pair
    target = account(concurrent=1)
    call = await here.admit(target)
    assert isinstance(call, Call)
    await until(lambda: target.name in there.report())
    assert await there.admit(target) == "as many calls as it may have are running"
    with call:
        call.output()
    for _ in range(500):
        second = await there.admit(target)
        if isinstance(second, Call):
            break
        await asyncio.sleep(0.01)
    assert isinstance(second, Call)


async def test_only_one_process_tries_an_account_that_is_half_open() -> None:
    now = [1_700_000_000.0]
    boards = [Board(clock=lambda: now[0]) for _ in range(2)]
    sharings = [Sharing(board, settings.REDIS_URL) for board in boards]
    target = account()
    await fail(boards[0], target, ILL, 10)
    boards[1].learn([boards[0].report()])
    now[0] += 10
    for sharing in sharings:
        sharing.keep()
    first, second = [await board.admit(target) for board in boards]
    again = await boards[0].admit(target)
    assert isinstance(first, Call)
    assert (second, again) == ("another process tries it", "its breaker is open")
    with first:
        pass  # given up: this process may try at once again
    assert isinstance(await boards[0].admit(target), Call)
    for sharing in sharings:
        await sharing.close()
    async with Redis.from_url(settings.REDIS_URL) as redis:
        await redis.delete(trial_key("", target.name))


async def test_a_process_that_ends_takes_its_report_along(pair: tuple[Board, Board]) -> None:
    board, target = Board(), account()
    sharing = Sharing(board, settings.REDIS_URL)
    sharing.keep()
    await board.admit(target)
    async with Redis.from_url(settings.REDIS_URL) as redis:
        for _ in range(500):
            known, _old = read_reports(await redis.hgetall(reports_key("")))
            if known.get(sharing.process):
                break
            await asyncio.sleep(0.01)
        assert list(known[sharing.process]) == [target.name]
        await sharing.close()
        assert await redis.hget(reports_key(""), sharing.process) is None


async def test_the_report_of_a_process_that_was_killed_is_swept(pair: tuple[Board, Board]) -> None:
    async with Redis.from_url(settings.REDIS_URL) as redis:
        await redis.hset(reports_key(""), "killed", b'{"at":1700000000.0,"accounts":{}}')
        for _ in range(500):
            if await redis.hget(reports_key(""), "killed") is None:
                break
            await asyncio.sleep(0.01)
        assert await redis.hget(reports_key(""), "killed") is None


async def test_without_redis_a_process_goes_by_what_it_knows() -> None:
    now = [1_700_000_000.0]
    board, target = Board(clock=lambda: now[0]), account()
    sharing = Sharing(board, f"redis://127.0.0.1:{free_port()}/0")
    sharing.keep()
    await fail(board, target, ILL, 10)
    assert await board.admit(target) == "its breaker is open"
    now[0] += 10
    assert isinstance(await board.admit(target), Call)
    await sharing.close()
