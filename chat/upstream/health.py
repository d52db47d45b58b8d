"""How each account fares: a windowed breaker with half-open trials, its rests, its limits, its figures.

    board = Board()
    call = await board.admit(target)        a Call, or in words why the account is not to be asked now
    with call:
        call.output()                       the first output came
        call.fail(failed)                   or it failed, before or after

Everything is decided from this process's memory: no request waits for Redis, but for one that would try an account
whose breaker is half open. What other processes report is merged in beside it (`chat.upstream.sharing`); without them
a board is whole by itself. Times are seconds of the wall clock, since machines share them.

    closed ── 10 calls or more ended within the window, half of them badly; or one failure that proves the rest ──> open
    open ── its time is over: one request is let through, over all processes ──> half open
    half open ── output ──> closed;   a failure that counts ──> open, for twice as long
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Self

from chat.events import Failed
from chat.upstream.base import UpstreamTarget
from chat.upstream.failures import Blame, blame_of

BUCKET_SECONDS: Final = 10
BUCKETS: Final = 7  # the present one and six before it: a minute at least, 70 seconds at most
FEWEST_CALLS: Final = 10  # a breaker does not judge by fewer
COOL_SECONDS: Final = 10.0  # the first time that it is open, then twice as long each time
PROVEN_SECONDS: Final = 60.0  # at least, where a failure proves the next: keys and money take people
MAX_COOL_SECONDS: Final = 300.0
REST_SECONDS: Final = 1.0  # after a 429 that names no time, then twice as long each time
MAX_REST_SECONDS: Final = 30.0
FORGET_SECONDS: Final = 3600.0  # an account that nobody asks

Report = dict[str, Any]


class State(StrEnum):
    """A breaker's."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(slots=True)
class Verdict:
    """Where a breaker stands; of two processes' verdicts the later one counts."""

    is_open: bool = False
    since: float = 0.0
    until: float = 0.0
    trips: int = 0  # in a row

    def state(self, now: float) -> State:
        """Return the state; a breaker whose time is over is half open."""
        if not self.is_open:
            return State.CLOSED
        return State.OPEN if now < self.until else State.HALF_OPEN


@dataclass(slots=True)
class Bucket:
    """What happened within ten seconds; `waits` counts first outputs, and `waited` the milliseconds before them."""

    calls: int = 0
    good: int = 0
    bad: int = 0
    waits: int = 0
    waited: int = 0

    def add(self, other: Iterable[int]) -> None:
        """Add another's counts."""
        calls, good, bad, waits, waited = other
        self.calls += calls
        self.good += good
        self.bad += bad
        self.waits += waits
        self.waited += waited

    def counts(self) -> list[int]:
        """Return the five counts."""
        return [self.calls, self.good, self.bad, self.waits, self.waited]


@dataclass(slots=True)
class Gauge:
    """One account, as this process knows it; `theirs` and `in_flight_elsewhere` are other processes' share."""

    verdict: Verdict = field(default_factory=Verdict)
    buckets: dict[int, Bucket] = field(default_factory=dict)
    in_flight: int = 0
    rest_until: float = 0.0
    rests: int = 0  # in a row
    last_failure: str = ""
    last_failed_at: float = 0.0
    used_at: float = 0.0
    asked: deque[float] = field(default_factory=deque)  # within the last minute, where there is a limit
    on_trial: bool = False
    theirs: Bucket = field(default_factory=Bucket)
    in_flight_elsewhere: int = 0

    def bucket(self, now: float) -> Bucket:
        """Return the present bucket, and drop the old ones."""
        number = int(now // BUCKET_SECONDS)
        if number not in self.buckets:
            self.buckets = {n: bucket for n, bucket in self.buckets.items() if n > number - BUCKETS}
            self.buckets[number] = Bucket()
        return self.buckets[number]

    def window(self, now: float) -> Bucket:
        """Return this process's sums of the window."""
        return _sum(((n, bucket.counts()) for n, bucket in self.buckets.items()), now)

    def asked_within_minute(self, now: float) -> int:
        """Return how often this process has asked within a minute."""
        while self.asked and self.asked[0] <= now - 60:
            self.asked.popleft()
        return len(self.asked)

    def is_failing(self, now: float) -> bool:
        """Return whether the window tells to open: its calls, here and elsewhere, ended badly in half of the cases."""
        mine = self.window(now)
        bad = mine.bad + self.theirs.bad
        ended = bad + mine.good + self.theirs.good
        return ended >= FEWEST_CALLS and bad * 2 >= ended

    def judge(self, verdict: Verdict) -> None:
        """Take a verdict; a breaker that closes begins to count anew."""
        self.verdict = verdict
        if not verdict.is_open:
            for bucket in self.buckets.values():
                bucket.good = bucket.bad = 0
            self.theirs.good = self.theirs.bad = 0

    def report(self) -> Report:
        """Return what other processes are told."""
        verdict = self.verdict
        return {
            "buckets": [[number, *bucket.counts()] for number, bucket in self.buckets.items()],
            "in_flight": self.in_flight,
            "verdict": [verdict.is_open, verdict.since, verdict.until, verdict.trips],
            "rest_until": self.rest_until,
            "last_failure": [self.last_failure, self.last_failed_at],
        }


def _sum(buckets: Iterable[tuple[int, Iterable[int]]], now: float) -> Bucket:
    oldest, total = int(now // BUCKET_SECONDS) - BUCKETS, Bucket()
    for number, counts in buckets:
        if number > oldest:
            total.add(counts)
    return total


async def _always(_name: str) -> bool:
    return True


class Board:
    """The health of every account. One for each process; tests make their own."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._gauges: dict[str, Gauge] = {}
        # Set by whoever shares the board: asked before a trial, and told of what others should know soon.
        self.claim_trial: Callable[[str], Awaitable[bool]] = _always
        self.on_news: Callable[[], None] = lambda: None

    async def admit(self, target: UpstreamTarget) -> "Call | str":
        """Count a call of the account that is about to be made; or return why none should be."""
        now, gauge = self._clock(), self._gauge(target.name)
        if reason := _reason_to_wait(gauge, target, now):
            return reason
        is_trial = gauge.verdict.is_open
        if is_trial:
            gauge.on_trial = True  # before the question: a second request must not ask it meanwhile
            if not await self._claim(target.name, gauge):
                return "another process tries it"
        return self._begin(target, gauge, is_trial=is_trial)

    async def _claim(self, name: str, gauge: Gauge) -> bool:
        claimed = False
        try:
            claimed = await self.claim_trial(name)
        finally:
            gauge.on_trial = claimed
        return claimed

    def _begin(self, target: UpstreamTarget, gauge: Gauge, *, is_trial: bool) -> "Call":
        now = self._clock()
        gauge.used_at = now
        gauge.in_flight += 1
        gauge.bucket(now).calls += 1
        if target.limits.per_minute:
            gauge.asked.append(now)
        has_limits = bool(target.limits.concurrent or target.limits.per_minute)
        if has_limits:
            self.on_news()
        return Call(self, gauge, is_trial=is_trial, has_limits=has_limits, began=now)

    def now(self) -> float:
        """Return the time that the board goes by."""
        return self._clock()

    def report(self) -> dict[str, Report]:
        """Return each account's report, for other processes and for the admin; forget those that nobody asks."""
        forgotten = self._clock() - FORGET_SECONDS
        self._gauges = {
            name: gauge for name, gauge in self._gauges.items() if gauge.in_flight or gauge.used_at > forgotten
        }
        return {name: gauge.report() for name, gauge in self._gauges.items()}

    def learn(self, reports: Iterable[Mapping[str, Report]]) -> None:
        """Take in what other processes report now, in place of what they reported before."""
        by_name: dict[str, list[Report]] = {}
        now = self._clock()
        for accounts in reports:
            for name, report in accounts.items():
                if name in self._gauges or _has_news(report, now):
                    by_name.setdefault(name, []).append(report)
        for name in {*self._gauges, *by_name}:
            self._learn_of(self._gauge(name), by_name.get(name, []), now)

    def _learn_of(self, gauge: Gauge, reports: list[Report], now: float) -> None:
        gauge.in_flight_elsewhere = sum(report["in_flight"] for report in reports)
        for report in reports:
            gauge.rest_until = max(gauge.rest_until, report["rest_until"])
            verdict = Verdict(*report["verdict"])
            if verdict.since > gauge.verdict.since:
                gauge.judge(verdict)
                gauge.used_at = max(gauge.used_at, verdict.since)
        gauge.theirs = Bucket()
        for report in reports:
            counts = _sum(((n, rest) for n, *rest in report["buckets"]), now)
            if report["verdict"][1] < gauge.verdict.since:
                counts.good = counts.bad = 0  # from before the verdict, which that process has yet to learn
            gauge.theirs.add(counts.counts())

    def _gauge(self, name: str) -> Gauge:
        if name not in self._gauges:
            self._gauges[name] = Gauge(used_at=self._clock())
        return self._gauges[name]


def _has_news(report: Report, now: float) -> bool:
    """Return whether a report is worth a gauge of its own; two processes would else remind each other for ever."""
    is_open, _since, until, _trips = report["verdict"]
    return bool(
        report["in_flight"]
        or (is_open and until > now - FORGET_SECONDS)
        or report["rest_until"] > now
        or _sum(((n, rest) for n, *rest in report["buckets"]), now).calls
    )


def _reason_to_wait(gauge: Gauge, target: UpstreamTarget, now: float) -> str:
    if gauge.verdict.is_open and (now < gauge.verdict.until or gauge.on_trial):
        return "its breaker is open"
    if now < gauge.rest_until:
        return "it rests, as its provider asked"
    limits = target.limits
    if limits.concurrent and gauge.in_flight + gauge.in_flight_elsewhere >= limits.concurrent:
        return "as many calls as it may have are running"
    if limits.per_minute and gauge.asked_within_minute(now) + gauge.theirs.calls >= limits.per_minute:
        return "it was asked as often as it may be in a minute"
    return ""


class Call:
    """One call of an account, from admission to its end."""

    def __init__(self, board: Board, gauge: Gauge, *, is_trial: bool, has_limits: bool, began: float) -> None:
        self._board = board
        self._gauge = gauge
        self._is_trial = is_trial
        self._has_limits = has_limits
        self._began = began
        self._had_output = False
        self._failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        gauge = self._gauge
        gauge.in_flight -= 1
        if self._had_output and not self._failed:
            gauge.bucket(self._board.now()).good += 1
        if self._is_trial:
            gauge.on_trial = False
        if self._has_limits:
            self._board.on_news()

    def output(self) -> None:
        """Note the first output: the account works."""
        now, gauge = self._board.now(), self._gauge
        self._had_output = True
        bucket = gauge.bucket(now)
        bucket.waits += 1
        bucket.waited += max(0, round((now - self._began) * 1000))
        gauge.rests = 0
        if self._is_trial:
            self._is_trial = gauge.on_trial = False
            gauge.judge(Verdict(since=now))
            self._board.on_news()

    def fail(self, failed: Failed) -> None:
        """Note a failure, and do what its class wants of the account."""
        now, gauge = self._board.now(), self._gauge
        self._failed = True
        gauge.last_failure, gauge.last_failed_at = str(failed.kind), now
        blame = blame_of(failed)
        if blame is Blame.REST:
            rest = failed.retry_after or min(REST_SECONDS * 2**gauge.rests, MAX_REST_SECONDS)
            gauge.rest_until = max(gauge.rest_until, now + rest)
            gauge.rests += 1
        elif blame is not Blame.NONE:
            gauge.bucket(now).bad += 1
            self._judge(gauge, blame, now)
        self._board.on_news()

    def _judge(self, gauge: Gauge, blame: Blame, now: float) -> None:
        # One that began before the breaker opened tells nothing new.
        if gauge.verdict.is_open and not self._is_trial:
            return
        if not (self._is_trial or blame is Blame.PROVEN or gauge.is_failing(now)):
            return
        trips = gauge.verdict.trips + 1
        cool = min(COOL_SECONDS * 2 ** (trips - 1), MAX_COOL_SECONDS)
        if blame is Blame.PROVEN:
            cool = max(cool, PROVEN_SECONDS)
        gauge.judge(Verdict(is_open=True, since=now, until=now + cool, trips=trips))


# --- for people ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """An account's figures over all processes: of the last minute, and of now."""

    state: State
    open_until: float
    rest_until: float
    in_flight: int
    calls: int
    good: int
    bad: int
    first_token_ms: int | None  # on average, where there was one
    last_failure: str
    last_failed_at: float


def health_of(reports: Iterable[Report], *, now: float) -> Health:
    """Return what every process's reports of one account say together."""
    known = list(reports)
    total = Bucket()
    for report in known:
        total.add(_sum(((n, rest) for n, *rest in report["buckets"]), now).counts())
    verdict = max((Verdict(*report["verdict"]) for report in known), key=lambda one: one.since, default=Verdict())
    last_failed_at, last_failure = max((tuple(report["last_failure"][::-1]) for report in known), default=(0.0, ""))
    rest = max((report["rest_until"] for report in known), default=0.0)
    return Health(
        state=verdict.state(now),
        open_until=verdict.until if verdict.is_open else 0.0,
        rest_until=rest if rest > now else 0.0,
        in_flight=sum(report["in_flight"] for report in known),
        calls=total.calls,
        good=total.good,
        bad=total.bad,
        first_token_ms=total.waited // total.waits if total.waits else None,
        last_failure=last_failure,
        last_failed_at=last_failed_at,
    )
