"""The streaming client: one POST, and its body's bytes through a dialect's parser as soon as they come.

aiohttp's engine is used directly; docs/adr says what that saves. One session serves all streams of an event loop, so
that connections to providers are reused; call `close()` before the loop ends.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Final, Protocol
from weakref import WeakKeyDictionary

import aiohttp

from chat.events import Delta, Done, Event, Failed, FailureKind, Started
from chat.upstream.addresses import guarded_socket
from chat.upstream.base import Rest, Timeouts, UpstreamTarget, no_rest
from chat.upstream.failures import retry_after

# Providers keep idle connections for a minute, small servers for five seconds: a connection that we reuse while its
# server closes it would cost a request.
KEEP_ALIVE: Final = 4.0  # seconds
MAX_REFUSAL: Final = 64 * 1024  # bytes of a refusal's body that are read
SECONDS_FOR_REFUSAL: Final = 5.0
# Rests end together at multiples of this.
REST_STEP: Final = 0.01  # seconds
# After the last event the end of the body is awaited this long, as a body read to its end frees its connection for
# the next stream.
SECONDS_FOR_END: Final = 0.1

_ENDS: Final = (Done, Failed)

# By where their connections may lead: one that leads anywhere is never used for a target that may not go there.
_Sessions = dict[frozenset[str] | None, aiohttp.ClientSession]
_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, _Sessions] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Call:
    """The HTTP side of a request."""

    url: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class Parser(Protocol):
    """A dialect's reader of one answer. Both methods return events; the last one is `Done` or `Failed`."""

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes."""
        ...

    def end(self, reason: Failed | None = None) -> list[Event]:
        """Return the last events; the body is over, by itself or for `reason`."""
        ...


async def stream(
    target: UpstreamTarget, call: Call, parser: Parser, refusal: Callable[[int, bytes], Failed], rest: Rest = no_rest
) -> AsyncGenerator[list[Event], None]:
    """Make the call and yield a batch of events for every read (see `Upstream`)."""
    clock = _Clock(target.timeouts)
    response = await _open(call, target)
    if isinstance(response, Failed):
        yield [_hide_key(response, target)]
        return
    try:
        if not _is_stream(response):
            failed = refusal(response.status, await _read_refusal(response))
            yield [_hide_key(replace(failed, retry_after=retry_after(response.headers)), target)]
            return
        events: list[Event] = [Started(target=target.name, model=target.model)]
        clock.watch(response)
        while True:
            clock.begin_wait()
            try:
                data = await response.content.readany()
            except (aiohttp.ClientError, OSError) as fault:
                data = b""
                events += parser.end(clock.expired or Failed(FailureKind.NETWORK, "broken off: " + _say(fault)))
            else:
                events += parser.feed(data) if data else parser.end(clock.expired)
            clock.end_wait()
            if not events:
                continue
            last = events[-1]
            if isinstance(last, _ENDS):
                yield [*events[:-1], _hide_key(last, target)]
                break
            if not clock.has_output:
                clock.note(events)
            yield events
            events = []
            if seconds := rest():
                await _leave_unread(response, seconds)
        await _read_to_end(response)
    finally:
        clock.stop()
        response.close()  # returns it to the pool if it was read to its end, else closes the connection


async def close() -> None:
    """Close the running loop's sessions and their idle connections. A later stream opens a new one."""
    for session in _sessions.pop(asyncio.get_running_loop(), {}).values():
        await session.close()


def _session(may_reach: frozenset[str] | None) -> aiohttp.ClientSession:
    sessions = _sessions.setdefault(asyncio.get_running_loop(), {})
    if may_reach not in sessions:
        sessions[may_reach] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=KEEP_ALIVE,
                socket_factory=None if may_reach is None else guarded_socket(may_reach),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            # A compressed body would come in blocks, late.
            headers={"Accept-Encoding": "identity", "User-Agent": "banyan"},
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
        )
    return sessions[may_reach]


async def _open(call: Call, target: UpstreamTarget) -> aiohttp.ClientResponse | Failed:
    """Send the request and return once the answer's headers are there, or why they are not."""
    timeouts = target.timeouts
    limit = aiohttp.ClientTimeout(total=None, connect=timeouts.connect)
    try:
        async with asyncio.timeout(min(timeouts.first_token, timeouts.total)):
            return await _session(target.may_reach).post(
                call.url, data=call.body, headers=call.headers, timeout=limit, allow_redirects=False
            )
    except TimeoutError as fault:
        return Failed(FailureKind.TIMEOUT, f"no answer in time: {_say(fault)}")
    except (aiohttp.ClientError, OSError, ValueError) as fault:
        return Failed(FailureKind.NETWORK, _say(fault))


def _is_stream(response: aiohttp.ClientResponse) -> bool:
    """Return whether events follow. Some providers name no type or text/plain; a page or an object is a refusal."""
    is_other = response.content_type == "application/json" or response.content_type.startswith("text/html")
    return response.status == HTTPStatus.OK and not is_other


async def _read_refusal(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(SECONDS_FOR_REFUSAL):
            while len(body) < MAX_REFUSAL and (data := await response.content.readany()):
                body += data
    return bytes(body[:MAX_REFUSAL])


async def _leave_unread(response: aiohttp.ClientResponse, seconds: float) -> None:
    """Leave what comes to the kernel for a while."""
    transport = response.connection.transport if response.connection else None
    if transport is None or transport.is_closing():  # the body is here to its end
        return
    loop = asyncio.get_running_loop()
    now = loop.time()
    transport.pause_reading()
    try:
        # To the next of common points in time, so that the process wakes once for many streams.
        await asyncio.sleep(math.ceil((now + seconds) / REST_STEP) * REST_STEP - now)
    finally:
        if not transport.is_closing():
            transport.resume_reading()


async def _read_to_end(response: aiohttp.ClientResponse) -> None:
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(SECONDS_FOR_END):
            while await response.content.readany():
                pass


def _say(fault: Exception) -> str:
    return f"{type(fault).__name__}: {fault}"


def _hide_key(event: Event, target: UpstreamTarget) -> Event:
    """Return the event without the API key, which some providers repeat in a refusal."""
    if isinstance(event, Failed) and target.api_key and target.api_key in event.detail:
        return replace(event, detail=event.detail.replace(target.api_key, "[hidden]"))
    return event


class _Clock:
    """Closes the connection when a time limit passes while we wait for it; the reader then finds it closed.

    One timer for each stream, moved only when it fires, instead of one for each read. It does not cancel the task,
    which may be somewhere else by then: in the code that consumes the events.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._waiting_since = math.inf  # while nobody reads
        self._timer: asyncio.TimerHandle | None = None
        self._response: aiohttp.ClientResponse | None = None
        self.has_output = False
        self.expired: Failed | None = None

    def watch(self, response: aiohttp.ClientResponse) -> None:
        """Close `response` where a limit passes."""
        self._response = response
        self._arm()

    def begin_wait(self) -> None:
        """Note that a read begins."""
        self._waiting_since = self._loop.time()

    def end_wait(self) -> None:
        """Note that it has ended: what its events are used for takes as long as it takes."""
        self._waiting_since = math.inf

    def note(self, events: list[Event]) -> None:
        """Note whether the first output has come: from then on the limit is on silence."""
        self.has_output = any(isinstance(event, Delta) and event.output for event in events)
        if self.has_output:
            self._arm()

    def stop(self) -> None:
        """Stop watching."""
        if self._timer:
            self._timer.cancel()

    def _deadline(self) -> float:
        end = self._started + self._timeouts.total
        if self.has_output:
            return min(self._waiting_since + self._timeouts.idle, end)
        return min(self._started + self._timeouts.first_token, end)

    def _arm(self) -> None:
        self.stop()
        # While nobody reads no limit passes: it is looked at again soon.
        is_waiting = not math.isinf(self._waiting_since)
        self._timer = self._loop.call_at(self._deadline() if is_waiting else self._loop.time() + 1, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if math.isinf(self._waiting_since) or self._loop.time() < self._deadline():
            self._arm()
            return
        limit = "silence or the whole" if self.has_output else "the first token"
        self.expired = Failed(FailureKind.TIMEOUT, f"the limit for {limit} passed")
        if self._response is not None:
            self._response.close()
