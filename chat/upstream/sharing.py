"""The boards of all processes, shared over Redis, beside the requests and not in their way.

Every process writes one report, of all accounts that it knows, into one hash, and reads the others' in the same round
trip: each half second, and at once after news. A process that is killed is forgotten when its report is old. While
Redis is away each process goes by what it knows; what it had learned of open breakers stays.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Mapping
from contextvars import Context
from typing import Any, Final

import orjson
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from chat.upstream.health import Board, Report

logger = structlog.get_logger(__name__)

# The number changes with what a report holds, so that processes of two versions do not misread each other.
_KEY: Final = "banyan:upstreams:1:"
_TRIAL_KEY: Final = "banyan:upstreams:trial:"
PERIOD: Final = 0.5  # seconds between reports without news
SHORTEST_PERIOD: Final = 0.05  # with news
OLD_SECONDS: Final = 5.0  # a report's age at which its process counts as gone
TRIAL_SECONDS: Final = 15  # a trial that has no end within so long may be made elsewhere too
TIMEOUT: Final = 1.0  # of a call of Redis


def reports_key(realm: str) -> str:
    """Return the name of the hash that the processes of a realm report to."""
    return _KEY + realm


def trial_key(realm: str, name: str) -> str:
    """Return the key that whoever tries an account takes."""
    return f"{_TRIAL_KEY}{realm}:{name}"


class Sharing:
    """Keeps one board in step with those of other processes, in a task of the loop that uses it."""

    def __init__(self, board: Board, url: str, *, realm: str = "") -> None:
        self.process = uuid.uuid4().hex
        self._board = board
        self._url = url
        self._realm = realm
        self._key = reports_key(realm)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._redis: Redis | None = None
        self._news = asyncio.Event()
        self._is_away = False
        board.claim_trial = self._claim_trial
        board.on_news = self._wake

    def keep(self) -> None:
        """See to it that the running loop has the task. Cheap; called by every request."""
        loop = asyncio.get_running_loop()
        if self._loop is loop and self._task is not None and not self._task.done():
            return
        self._loop, self._news = loop, asyncio.Event()
        self._redis = Redis.from_url(self._url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
        # A context of its own: the task must not carry the first request's.
        self._task = loop.create_task(self._run(self._redis), name="upstreams-sharing", context=Context())

    async def close(self) -> None:
        """Withdraw this process's report and end the task."""
        if self._task is None or self._loop is not asyncio.get_running_loop():
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def _run(self, redis: Redis) -> None:
        try:
            while True:
                self._news.clear()
                await self._sync(redis)
                await asyncio.sleep(SHORTEST_PERIOD)
                # Not wait_for: in Python 3.11 that may lose a cancellation, and closing would wait for ever.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PERIOD - SHORTEST_PERIOD):
                        await self._news.wait()
        finally:
            with contextlib.suppress(RedisError, OSError):
                await redis.hdel(self._key, self.process)
            await redis.aclose()

    async def _sync(self, redis: Redis) -> None:
        report = orjson.dumps({"at": time.time(), "accounts": self._board.report()})
        try:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.hset(self._key, self.process, report)
                pipe.hgetall(self._key)
                pipe.expire(self._key, 60)
                _, found, _ = await pipe.execute()
            known, old = read_reports(found)
            if old:
                await redis.hdel(self._key, *old)
        except (RedisError, OSError) as fault:
            self._board.learn([])
            if not self._is_away:
                logger.warning("upstreams_not_shared", fault=type(fault).__name__)
            self._is_away = True
            return
        known.pop(self.process, None)
        self._board.learn(known.values())
        self._is_away = False

    def _wake(self) -> None:
        self._news.set()

    async def _claim_trial(self, name: str) -> bool:
        """Return whether this process may try an account; so do all of them while Redis is away."""
        if self._redis is None or self._is_away:
            return True
        key = trial_key(self._realm, name)
        try:
            if await self._redis.set(key, self.process, nx=True, ex=TRIAL_SECONDS):
                return True
            return bool(await self._redis.get(key) == self.process.encode())
        except (RedisError, OSError):
            return True


def read_reports(found: Mapping[Any, Any]) -> tuple[dict[str, dict[str, Report]], list[bytes]]:
    """Return each living process's reports by account, and the hash's fields of those that are gone."""
    known: dict[str, dict[str, Report]] = {}
    old: list[bytes] = []
    for process, data in found.items():
        report = orjson.loads(data)
        if time.time() - report["at"] > OLD_SECONDS:
            old.append(process)
        else:
            known[process.decode()] = report["accounts"]
    return known, old
