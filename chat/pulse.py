"""What is going on now: answers that run, began and failed, and how long first tokens took, for staff's live tiles.

    beat()       one answer of this process, counted while the block runs: a few additions in memory
    keep()       see to it that this process reports what it counts, each PERIOD, to one hash in Redis
    Watch        reads all processes' reports while somebody watches, and at no other time

Nothing waits for Redis: while it is away nobody is told anything. A process that died is left out when its report is
old.
"""

import asyncio
import contextlib
import statistics
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakKeyDictionary

import orjson
from django.conf import settings
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tenants import bell

PERIOD: Final = 2.0  # seconds between reports, and between readings
WINDOW: Final = 60.0  # seconds that figures are of
OLD_SECONDS: Final = 3 * PERIOD  # a report's age at which its process counts as gone
TIMEOUT: Final = 1.0  # seconds; a Redis that takes longer is away
# First tokens that a process remembers of a tenant, the latest: a median of more would be no other.
SAMPLES: Final = 64
_BUCKETS: Final = int(WINDOW / PERIOD)

# A tenant's figures in a report: running, chats, failed, milliseconds to first tokens.
Report = tuple[int, int, int, list[int]]


def _key() -> str:
    # Tenants are named by their rows' ids: another database on the same Redis has others under the same numbers.
    return f"banyan:pulse:1:{settings.DATABASES['default']['NAME']}"


@dataclass(frozen=True, kw_only=True)
class Now:
    """The figures of the last minute, and how many answers run."""

    running: int
    chats: int
    failed: int
    first_token_ms: int | None


@dataclass(slots=True)
class _Tally:
    """One tenant's counts in this process; buckets are of PERIOD, by number."""

    running: int = 0
    chats: dict[int, int] = field(default_factory=dict)
    failed: dict[int, int] = field(default_factory=dict)
    waits: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=SAMPLES))

    def report(self, now: float) -> Report:
        """Return what is of the last minute, and forget what is not."""
        oldest = int(now // PERIOD) - _BUCKETS
        for counts in (self.chats, self.failed):
            for number in [number for number in counts if number <= oldest]:
                del counts[number]
        while self.waits and self.waits[0][0] < now - WINDOW:
            self.waits.popleft()
        waits = [milliseconds for _at, milliseconds in self.waits]
        return self.running, sum(self.chats.values()), sum(self.failed.values()), waits


class Pulse:
    """The counts of one process, by tenant."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tallies: dict[int, _Tally] = {}

    @contextlib.contextmanager
    def beat(self, tenant_id: int) -> Iterator["Beat"]:
        """Count an answer while the block runs."""
        tally = self._tallies.get(tenant_id)
        if tally is None:
            tally = self._tallies[tenant_id] = _Tally()
        beat = Beat(tally, self._clock)
        tally.running += 1
        _add(tally.chats, self._clock())
        try:
            yield beat
        finally:
            tally.running -= 1
            if beat.failed:
                _add(tally.failed, self._clock())

    def report(self) -> dict[int, Report]:
        """Return each tenant's figures, those of nothing left out and forgotten."""
        now = self._clock()
        reports = {tenant_id: tally.report(now) for tenant_id, tally in self._tallies.items()}
        found = {tenant_id: report for tenant_id, report in reports.items() if any(report)}
        self._tallies = {tenant_id: self._tallies[tenant_id] for tenant_id in found}
        return found


class Beat:
    """One answer: whoever generates it says when its first output came, and whether it failed."""

    __slots__ = ("_began", "_clock", "_had_output", "_tally", "failed")

    def __init__(self, tally: _Tally, clock: Callable[[], float]) -> None:
        self._tally = tally
        self._clock = clock
        self._began = clock()
        self._had_output = False
        self.failed = False

    def output(self) -> None:
        """Note the first output; later ones change nothing."""
        if not self._had_output:
            self._had_output = True
            now = self._clock()
            self._tally.waits.append((now, max(0, round((now - self._began) * 1000))))


def _add(counts: dict[int, int], now: float) -> None:
    number = int(now // PERIOD)
    counts[number] = counts.get(number, 0) + 1


def together(reports: Iterable[Mapping[str, Any]], *, tenant_id: int | None) -> Now:
    """Return what processes report of one tenant, or of all of them together."""
    rows: list[Report] = []
    for report in reports:
        rows += report.values() if tenant_id is None else [report[str(tenant_id)]] if str(tenant_id) in report else []
    waits = [milliseconds for *_counts, waited in rows for milliseconds in waited]
    return Now(
        running=sum(row[0] for row in rows),
        chats=sum(row[1] for row in rows),
        failed=sum(row[2] for row in rows),
        first_token_ms=round(statistics.median(waits)) if waits else None,
    )


class _Heart:
    """Reports one loop's pulse until the loop, or the process, ends."""

    def __init__(self, pulse: Pulse) -> None:
        self.process = uuid.uuid4().hex
        self._pulse = pulse
        # A context of its own: the task must not carry the first request's.
        self._task = asyncio.get_running_loop().create_task(self._run(), name="pulse", context=Context())

    @property
    def is_beating(self) -> bool:
        """Whether its task still runs."""
        return not self._task.done()

    async def close(self) -> None:
        """Withdraw the report, and end."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        client = Redis.from_url(settings.REDIS_URL, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
        has_reported = False
        try:
            while True:
                await asyncio.sleep(PERIOD)
                has_reported = await self._tell(client, has_reported=has_reported)
        finally:
            with contextlib.suppress(RedisError, OSError):
                await client.hdel(_key(), self.process)
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()

    async def _tell(self, client: Redis, *, has_reported: bool) -> bool:
        """Write the report, or take it back where there is nothing any more; return whether one stands."""
        report = self._pulse.report()
        if not report and not has_reported:
            return False
        told = {"at": time.time(), "tenants": {str(tenant_id): row for tenant_id, row in report.items()}}
        with contextlib.suppress(RedisError, OSError):
            async with client.pipeline(transaction=False) as pipe:
                if report:
                    pipe.hset(_key(), self.process, orjson.dumps(told).decode())
                else:
                    pipe.hdel(_key(), self.process)
                pipe.expire(_key(), int(WINDOW))
                await pipe.execute()
        return bool(report)


PULSE: Final = Pulse()
_hearts: WeakKeyDictionary[asyncio.AbstractEventLoop, _Heart] = WeakKeyDictionary()


def beat(tenant_id: int) -> contextlib.AbstractContextManager[Beat]:
    """Count an answer of this process while the block runs, and have it reported."""
    keep()
    return PULSE.beat(tenant_id)


def keep() -> None:
    """See to it that the running loop reports."""
    loop = asyncio.get_running_loop()
    heart = _hearts.get(loop)
    if heart is None or not heart.is_beating:
        _hearts[loop] = _Heart(PULSE)


async def close() -> None:
    """Withdraw what the running loop reports."""
    if heart := _hearts.pop(asyncio.get_running_loop(), None):
        await heart.close()


# --- for those who watch ---


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One reading: every living process's report (None: Redis is away), and what the bell was rung."""

    reports: tuple[Mapping[str, Any], ...] | None
    notices: Mapping[str, str]

    def now(self, *, tenant_id: int | None) -> Now | None:
        """Return a tenant's figures, or all tenants', None while nobody knows."""
        return None if self.reports is None else together(self.reports, tenant_id=tenant_id)

    def notice(self, *, tenant_id: int | None) -> str:
        """Return what changes when there is a new notice for a tenant, or for the operator."""
        return self.notices.get(bell.reader(tenant_id), "")


class Watch:
    """Reads for all who watch in one loop, and stops when the last has gone."""

    def __init__(self) -> None:
        self._watchers: set[Callable[[Seen], None]] = set()
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def watched_by(self, take: Callable[[Seen], None]) -> Iterator[None]:
        """Give `take` each reading while the block runs."""
        self._watchers.add(take)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="pulse-watch", context=Context())
        try:
            yield
        finally:
            self._watchers.discard(take)

    def __len__(self) -> int:
        return len(self._watchers)

    async def _run(self) -> None:
        client = Redis.from_url(settings.REDIS_URL, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
        try:
            while self._watchers:
                seen = await _look(client)
                for take in tuple(self._watchers):
                    take(seen)
                await asyncio.sleep(PERIOD)
        finally:
            self._task = None
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()


async def _look(client: Redis) -> Seen:
    try:
        async with client.pipeline(transaction=False) as pipe:
            pipe.hgetall(_key())
            pipe.hgetall(bell.key())
            found, notices = await pipe.execute()
    except (RedisError, OSError):
        return Seen(reports=None, notices={})
    reports = (orjson.loads(data) for data in found.values())
    living = tuple(report["tenants"] for report in reports if time.time() - report["at"] <= OLD_SECONDS)
    return Seen(reports=living, notices={reader.decode(): number.decode() for reader, number in notices.items()})


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, Watch] = WeakKeyDictionary()


def watch_here() -> Watch:
    """Return the running loop's watch."""
    loop = asyncio.get_running_loop()
    if loop not in _watches:
        _watches[loop] = Watch()
    return _watches[loop]
