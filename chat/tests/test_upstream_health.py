"""The breaker, rests and limits of accounts, on a clock of the test's, and as the pool acts on them over real HTTP."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from chat.events import Delta, Event, Failed, FailureKind
from chat.upstream import client
from chat.upstream.base import ChatRequest, Limits, Timeouts, UpstreamTarget
from chat.upstream.failures import RULES, Blame, blame_of, retry_after
from chat.upstream.health import Board, Call, State, health_of
from chat.upstream.pool import in_order, stream_first_good
from tests.doubles.upstream import ScriptedUpstream

REQUEST = ChatRequest(messages=[{"role": "user", "content": "hello"}], max_tokens=100)
ILL = Failed(FailureKind.OVERLOAD, status=503)
A = UpstreamTarget(name="a", base_url="", model="m")


class Clock:
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        self.now = 1_700_000_005.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    return Board(clock=clock)


async def admitted(board: Board, target: UpstreamTarget = A) -> Call:
    call = await board.admit(target)
    assert isinstance(call, Call)
    return call


async def works(board: Board, count: int = 1, target: UpstreamTarget = A) -> None:
    for _ in range(count):
        with await admitted(board, target) as call:
            call.output()


async def fails(board: Board, count: int = 1, failed: Failed = ILL) -> None:
    for _ in range(count):
        with await admitted(board) as call:
            call.fail(failed)


def state_of(board: Board, now: float) -> State:
    return health_of([board.report()["a"]], now=now).state


# --- the breaker ---


async def test_one_failure_opens_nothing(board: Board, clock: Clock) -> None:
    await fails(board, 9)

    assert state_of(board, clock.now) == State.CLOSED


async def test_it_opens_by_the_half_of_ten_calls(board: Board, clock: Clock) -> None:
    await works(board, 5)
    await fails(board, 4)
    assert state_of(board, clock.now) == State.CLOSED
    await fails(board)
    assert state_of(board, clock.now) == State.OPEN
    assert await board.admit(A) == "its breaker is open"


async def test_good_calls_keep_it_closed(board: Board, clock: Clock) -> None:
    await works(board, 12)
    await fails(board, 11)

    assert state_of(board, clock.now) == State.CLOSED


async def test_failures_of_more_than_a_minute_ago_are_forgotten(board: Board, clock: Clock) -> None:
    await fails(board, 9)
    clock.now += 70
    await fails(board)

    assert state_of(board, clock.now) == State.CLOSED


async def test_one_trial_at_a_time_closes_it(board: Board, clock: Clock) -> None:
    await fails(board, 10)
    clock.now += 9.9
    assert await board.admit(A) == "its breaker is open"
    clock.now += 0.2
    assert state_of(board, clock.now) == State.HALF_OPEN
    with await admitted(board) as trial:
        assert await board.admit(A) == "its breaker is open"
        trial.output()
        assert state_of(board, clock.now) == State.CLOSED
        await works(board)
    await fails(board, 7)
    assert state_of(board, clock.now) == State.CLOSED  # counts anew


async def test_a_trial_that_breaks_off_after_its_output_is_one_failure(board: Board, clock: Clock) -> None:
    await fails(board, 10)
    clock.now += 10
    with await admitted(board) as trial:
        trial.output()
        trial.fail(ILL)

    assert state_of(board, clock.now) == State.CLOSED


async def test_a_failed_trial_opens_it_for_twice_as_long(board: Board, clock: Clock) -> None:
    await fails(board, 10)
    waits = []
    for _ in range(7):
        wait = health_of([board.report()["a"]], now=clock.now).open_until - clock.now
        waits.append(wait)
        clock.now += wait
        await fails(board)

    assert waits == [10, 20, 40, 80, 160, 300, 300]


async def test_a_trial_that_is_given_up_leaves_the_next_one_free(board: Board, clock: Clock) -> None:
    await fails(board, 10)
    clock.now += 10
    with await admitted(board):
        pass  # its reader left before the first output
    assert state_of(board, clock.now) == State.HALF_OPEN
    await works(board)
    assert state_of(board, clock.now) == State.CLOSED


async def test_a_key_that_is_refused_opens_it_at_once(board: Board, clock: Clock) -> None:
    await fails(board, 1, Failed(FailureKind.AUTH, status=401))

    assert health_of([board.report()["a"]], now=clock.now).open_until == clock.now + 60


async def test_failures_of_calls_from_before_it_opened_change_nothing(board: Board, clock: Clock) -> None:
    late = [await admitted(board) for _ in range(3)]
    await fails(board, 10)
    until = health_of([board.report()["a"]], now=clock.now).open_until
    for call in late:
        with call:
            call.fail(ILL)

    assert health_of([board.report()["a"]], now=clock.now).open_until == until


# --- rests and limits ---


async def test_a_rest_is_as_long_as_the_provider_says(board: Board, clock: Clock) -> None:
    await fails(board, 1, Failed(FailureKind.RATE, status=429, retry_after=42.0))
    clock.now += 41
    assert await board.admit(A) == "it rests, as its provider asked"
    clock.now += 1
    await works(board)


async def test_a_rest_without_a_word_is_short_and_grows(board: Board, clock: Clock) -> None:
    rests = []
    for _ in range(7):
        await fails(board, 1, Failed(FailureKind.RATE, status=429))
        rests.append(health_of([board.report()["a"]], now=clock.now).rest_until - clock.now)
        clock.now += rests[-1]
    assert rests == [1, 2, 4, 8, 16, 30, 30]
    await works(board)
    await fails(board, 1, Failed(FailureKind.RATE, status=429))
    assert health_of([board.report()["a"]], now=clock.now).rest_until == clock.now + 1
    assert state_of(board, clock.now) == State.CLOSED


async def test_no_more_calls_at_once_than_an_account_takes(board: Board) -> None:
    two = replace(A, limits=Limits(concurrent=2))
    first, _second = await admitted(board, two), await admitted(board, two)
    assert await board.admit(two) == "as many calls as it may have are running"
    with first:
        pass
    await works(board, 1, two)


async def test_no_more_calls_in_a_minute_than_an_account_takes(board: Board, clock: Clock) -> None:
    three = replace(A, limits=Limits(per_minute=3))
    await works(board, 2, three)
    clock.now += 30
    await works(board, 1, three)
    assert await board.admit(three) == "it was asked as often as it may be in a minute"
    clock.now += 30
    await works(board, 2, three)
    assert await board.admit(three) == "it was asked as often as it may be in a minute"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "9", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "1e400"}, 0.0),
        ({"retry-after": "nan"}, 0.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "999999999"}, 3600.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2999 07:28:00 GMT"}, 3600.0),
    ],
)
def test_what_retry_after_says(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers) == seconds


def test_every_class_has_a_rule() -> None:
    assert set(RULES) == set(FailureKind)


@pytest.mark.parametrize(
    ("failed", "blame"),
    [
        (Failed(FailureKind.AUTH, status=401), Blame.PROVEN),
        (Failed(FailureKind.AUTH, status=403), Blame.COUNTED),
        (Failed(FailureKind.QUOTA, status=402), Blame.PROVEN),
        # Whoever asks can have their own words repeated in such a refusal.
        (Failed(FailureKind.QUOTA, status=400), Blame.COUNTED),
        (Failed(FailureKind.OVERLOAD, status=503), Blame.COUNTED),
        (Failed(FailureKind.OVERLOAD, status=529, retry_after=3.0), Blame.REST),
        (Failed(FailureKind.CONTENT, status=400), Blame.NONE),
    ],
)
def test_whose_fault_it_is(failed: Failed, blame: Blame) -> None:
    assert blame_of(failed) == blame


# --- what processes tell each other ---


async def test_another_process_learns_that_it_is_open_and_that_it_is_closed_again(clock: Clock) -> None:
    here, there = Board(clock=clock), Board(clock=clock)
    await fails(here, 10)
    there.learn([here.report()])
    assert await there.admit(A) == "its breaker is open"
    clock.now += 10
    with await admitted(there) as trial:
        trial.output()
    here.learn([there.report()])
    assert state_of(here, clock.now) == State.CLOSED
    await works(here)
    there.learn([here.report()])
    assert state_of(there, clock.now) == State.CLOSED


async def test_failures_count_together(clock: Clock) -> None:
    here, there = Board(clock=clock), Board(clock=clock)
    await fails(there, 6)
    here.learn([there.report()])
    await fails(here, 3)
    assert state_of(here, clock.now) == State.CLOSED
    await fails(here)
    assert state_of(here, clock.now) == State.OPEN


async def test_limits_and_rests_are_of_all_processes_together(clock: Clock) -> None:
    here, there = Board(clock=clock), Board(clock=clock)
    two = replace(A, limits=Limits(concurrent=2, per_minute=3))
    call = await admitted(there, two)
    here.learn([there.report()])
    with await admitted(here, two):
        assert await here.admit(two) == "as many calls as it may have are running"
    with call:
        call.output()
    here.learn([there.report()])
    await works(here, 1, two)
    assert await here.admit(two) == "it was asked as often as it may be in a minute"
    with await admitted(there) as other:
        other.fail(Failed(FailureKind.RATE, retry_after=500.0))
    here.learn([there.report()])
    assert await here.admit(A) == "it rests, as its provider asked"


async def test_a_process_that_is_gone_no_longer_counts(clock: Clock) -> None:
    here, there = Board(clock=clock), Board(clock=clock)
    one = replace(A, limits=Limits(concurrent=1))
    await admitted(there, one)
    here.learn([there.report()])
    assert await here.admit(one) == "as many calls as it may have are running"
    here.learn([])
    await works(here, 1, one)


async def test_an_account_that_nobody_asks_is_forgotten_by_all(clock: Clock) -> None:
    here, there = Board(clock=clock), Board(clock=clock)
    await works(here)
    there.learn([here.report()])
    assert list(there.report()) == ["a"]
    for _ in range(3):
        clock.now += 3601
        there.learn([here.report()])
        here.learn([there.report()])
    assert (here.report(), there.report()) == ({}, {})


async def test_what_people_see(board: Board, clock: Clock) -> None:
    with await admitted(board) as call:
        clock.now += 0.25
        call.output()
    await fails(board, 1, Failed(FailureKind.TIMEOUT))
    await admitted(board)
    health = health_of([board.report()["a"], board.report()["a"]], now=clock.now)

    assert (health.calls, health.good, health.bad, health.in_flight) == (6, 2, 2, 2)
    assert (health.first_token_ms, health.last_failure, health.last_failed_at) == (250, "timeout", clock.now)


# --- as the pool acts on it ---


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as scripted:
        yield scripted
        await client.close()


@pytest.fixture
def at(upstream: ScriptedUpstream) -> Callable[..., UpstreamTarget]:
    def make(name: str, model: str, priority: int = 0, **limits: int) -> UpstreamTarget:
        return UpstreamTarget(
            name=name,
            base_url=upstream.base_url,
            model=model,
            priority=priority,
            limits=Limits(**limits),
            timeouts=Timeouts(first_token=0.3),
        )

    return make


async def ask(board: Board, *targets: UpstreamTarget) -> list[Event]:
    batches = [batch async for batch in stream_first_good(targets, REQUEST, board=board)]
    return [event for batch in batches for event in batch]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def asked(upstream: ScriptedUpstream) -> list[str]:
    return [seen.body["model"] for seen in upstream.requests]


async def test_an_ill_account_is_left_alone_until_it_is_well(
    upstream: ScriptedUpstream, at: Callable[..., UpstreamTarget], board: Board, clock: Clock
) -> None:
    ill, spare = at("ill", "recovers:11:pool"), at("spare", "echo", 1)
    for _ in range(12):
        assert text_of(await ask(board, ill, spare)) == "hello"
    assert Counter(asked(upstream)) == {"recovers:11:pool": 10, "echo": 12}
    clock.now += 10
    assert text_of(await ask(board, ill, spare)) == "hello"  # a trial, which fails
    clock.now += 20
    await ask(board, ill, spare)  # and one that does not
    await ask(board, ill, spare)
    assert Counter(asked(upstream)) == {"recovers:11:pool": 13, "echo": 13}


async def test_retry_after_is_honoured(
    upstream: ScriptedUpstream, at: Callable[..., UpstreamTarget], board: Board, clock: Clock
) -> None:
    busy, spare = at("busy", "busy:30"), at("spare", "echo", 1)
    for _ in range(3):
        assert text_of(await ask(board, busy, spare)) == "hello"
    clock.now += 31
    await ask(board, busy, spare)

    assert Counter(asked(upstream)) == {"busy:30": 2, "echo": 4}


async def test_where_no_account_may_be_asked_none_is(
    upstream: ScriptedUpstream, at: Callable[..., UpstreamTarget], board: Board
) -> None:
    busy = at("busy", "busy:30")
    await ask(board, busy)
    with capture_logs() as logs:
        (failed,) = await ask(board, busy)

    assert failed == Failed(FailureKind.BUSY, "busy: it rests, as its provider asked")
    assert asked(upstream) == ["busy:30"]
    assert [(line["event"], line["target"]) for line in logs] == [("upstream_passed_over", "busy")]


async def test_a_full_account_hands_over_to_the_next(
    upstream: ScriptedUpstream, at: Callable[..., UpstreamTarget], board: Board
) -> None:
    small, spare = at("small", "stalls:1", concurrent=1), at("spare", "echo", 1)
    stream = stream_first_good([small, spare], REQUEST, board=board)
    await anext(stream)
    assert text_of(await ask(board, small, spare)) == "hello"
    await stream.aclose()
    assert text_of(await ask(board, at("small", "count:1", concurrent=1))) == "1 "


async def test_an_account_is_asked_once_whatever_its_models(
    upstream: ScriptedUpstream, at: Callable[..., UpstreamTarget], board: Board
) -> None:
    (failed,) = await ask(board, at("one", "http-500"), at("one", "echo", 1))

    assert isinstance(failed, Failed)
    assert asked(upstream) == ["http-500"]


async def test_a_failure_in_mid_answer_counts(
    upstream: ScriptedUpstream, at: Callable[..., UpstreamTarget], board: Board, clock: Clock
) -> None:
    for _ in range(10):
        await ask(board, at("a", "reset:1"))

    assert state_of(board, clock.now) == State.OPEN


async def test_what_users_ask_for_wrongly_counts_for_nothing(
    upstream: ScriptedUpstream, at: Callable[..., UpstreamTarget], board: Board, clock: Clock
) -> None:
    for model in ("context", "content", "http-400", "empty") * 5:
        await ask(board, at("a", model))

    assert state_of(board, clock.now) == State.CLOSED


async def test_the_whole_is_the_limit_of_all_accounts_together(
    upstream: ScriptedUpstream, at: Callable[..., UpstreamTarget], board: Board
) -> None:
    # Both limits are two seconds: the second account has what the first left of them, and a second at least.
    slow, mute = (
        replace(at(name, "mute", number), timeouts=Timeouts(first_token=1.5, total=2.0))
        for number, name in enumerate(("slow", "mute"))
    )
    (failed,) = await ask(board, slow, mute)

    assert isinstance(failed, Failed)
    assert failed.kind == FailureKind.TIMEOUT
    assert asked(upstream) == ["mute", "mute"]


def test_who_is_asked_first_is_drawn_by_weight_within_a_priority() -> None:
    heavy, light = replace(A, name="heavy", weight=300), replace(A, name="light", weight=100)
    spare = replace(A, name="spare", priority=1, weight=10_000)
    orders = [tuple(target.name for target in in_order([spare, light, heavy])) for _ in range(4000)]

    assert {order[2] for order in orders} == {"spare"}
    assert 0.70 < Counter(order[0] for order in orders)["heavy"] / 4000 < 0.80
