"""The load: many readers on raw connections, each of which notes how old every delta is when it arrives.

A reader costs a few microseconds a delta, so that the load's core serves more of them than the server's core does.
"""

import asyncio
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, cast

_STAMP: Final = re.compile(rb"@(\d+) ")
# A stamp that a read cut in two is found again in so many bytes before its end.
_LONGEST_STAMP: Final = 32
LATE: Final = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class Target:
    """Where to ask, and the request of each reader: whole HTTP requests that ask for the connection's end."""

    port: int
    requests: Sequence[bytes] = field(repr=False)


@dataclass(slots=True)
class Seen:
    """What the readers of one run saw. Ages and times in seconds."""

    ages: list[float] = field(default_factory=list, repr=False)
    first: list[float] = field(default_factory=list, repr=False)
    whole: int = 0
    broken: list[bytes] = field(default_factory=list, repr=False)

    @property
    def deltas(self) -> int:
        """How many came."""
        return len(self.ages)

    @property
    def late(self) -> float:
        """The share of deltas that were older than `LATE` when they came."""
        return sum(age > LATE for age in self.ages) / max(len(self.ages), 1)

    def age(self, percent: int) -> float:
        """Return the age that so many percent of the deltas did not pass."""
        return _percentile(self.ages, percent)

    @property
    def first_token(self) -> float:
        """The median time from a reader's request to its first delta."""
        return statistics.median(self.first) if self.first else float("nan")


def _percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else float("nan")


class _Reader(asyncio.Protocol):
    """One connection and its one request."""

    def __init__(self, request: bytes, seen: Seen, done: asyncio.Future[None]) -> None:
        self._request, self._seen, self._done = request, seen, done
        self._rest = b""
        self._has_any = False
        self._asked = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        # uvloop's is none by its class, and is one by what it does.
        self._transport = cast("asyncio.Transport", transport)
        self._asked = time.monotonic()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note the age of each delta that `data` completes."""
        now = time.monotonic()
        data = self._rest + data
        end = 0
        for stamp in _STAMP.finditer(data):
            self._seen.ages.append(now - int(stamp[1]) / 1e6)
            end = stamp.end()
        if end and not self._has_any:
            self._has_any = True
            self._seen.first.append(now - self._asked)
        self._rest = data[end:][-_LONGEST_STAMP:] if self._has_any else data[-2000:]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's name
        """Note whether the answer was whole: its end is a mini-program's or OpenAI's, before that of the body."""
        if b"[DONE]" in self._rest or b"0\r\n\r\n\r\n0\r\n" in self._rest or self._rest.endswith(b"\n0\r\n\r\n"):
            self._seen.whole += 1
        else:
            self._seen.broken.append(self._rest)
        if not self._done.done():
            self._done.set_result(None)

    def leave(self) -> None:
        """Close the connection, as a client that has seen enough."""
        self._transport.abort()


async def read_all(target: Target, *, over: float = 0.0, at_once: int = 0, seen: Seen | None = None) -> Seen:
    """Have every request answered to its end; they begin within `over` seconds, or never more than `at_once` run.

    What is seen is in `seen`, if it is given, while it is being seen.
    """
    seen = Seen() if seen is None else seen
    gate = asyncio.Semaphore(at_once or len(target.requests))
    loop = asyncio.get_running_loop()

    async def one(number: int, request: bytes) -> None:
        await asyncio.sleep(over * number / len(target.requests))
        async with gate:
            done = loop.create_future()
            await loop.create_connection(lambda: _Reader(request, seen, done), "127.0.0.1", target.port)
            await done

    await asyncio.gather(*(one(number, request) for number, request in enumerate(target.requests)))
    return seen


class Crowd:
    """Readers that stay, for what open streams cost that say nothing."""

    def __init__(self) -> None:
        self.seen = Seen()
        self._readers: list[_Reader] = []

    async def join(self, target: Target) -> None:
        """Open a stream for each request; return once each has had its first delta."""
        loop = asyncio.get_running_loop()
        wanted = len(self._readers) + len(target.requests)
        for request in target.requests:
            reader = _Reader(request, self.seen, loop.create_future())
            await loop.create_connection(lambda reader=reader: reader, "127.0.0.1", target.port)  # type: ignore[misc]
            self._readers.append(reader)
        end = loop.time() + 60
        while len(self.seen.first) < wanted and loop.time() < end:  # noqa: ASYNC110  a bench may look again
            await asyncio.sleep(0.05)
        if len(self.seen.first) < wanted:
            message = f"{wanted - len(self.seen.first)} of {wanted} streams did not begin"
            raise TimeoutError(message)

    def leave(self) -> None:
        """Close them all."""
        for reader in self._readers:
            reader.leave()
        self._readers.clear()
