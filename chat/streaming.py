"""The only builder of a streamed response: one reader's way from an answer to bytes on its connection.

    refuse()    a refusal as a whole response: status 200, one failure frame
    stream()    an answer in the reader's framing, until its end or until the reader leaves
    tell()      an answer as the events of a WebSocket

These are raw ASGI: Django's own streaming response would hold a thread for each open stream.

A reader that takes nothing waits in its own `send`, and holds up nobody; it takes a bounded piece of the answer at a
time, and one that has taken nothing for `STUCK_AFTER` is left.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import structlog
from django.utils import translation

from chat import frames
from chat.generation import Answer
from chat.turn import Ending
from tenants.embedding import ANYBODY
from tenants.errors import ProductError
from tenants.middleware import PREFLIGHT_HEADERS
from tenants.middleware import cors_headers as cors_headers_of

log = structlog.get_logger(__name__)

Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]

# Seconds. The first three are rules of the mini-program framing: see docs/protocol.md for what each prevents.
FRAME_GAP = 0.05
SILENCE_BEFORE_END = 0.2
HEARTBEAT_AFTER = 10.0
PING_AFTER = 15.0
# What is sent every FRAME_GAP is read as often; a little later, so that no frame has to wait for its turn once more.
READ_GAP = FRAME_GAP + 0.002
# A connection that has taken nothing for so long is dead, whatever it says.
STUCK_AFTER = 90.0
# Chunks of the upstream that are sent at once, at most: what a slow reader's connection has to keep.
MOST_CHUNKS = 256
# Characters in one event of a WebSocket.
MOST_CHARACTERS = 4096


class Framing(Enum):
    """The two forms of one answer over HTTP."""

    H5 = "h5"
    MINI_PROGRAM = "mini_program"


@dataclass(slots=True, kw_only=True)
class Reader:
    """One connection that reads an answer. `offset`: characters of the text that it has already.

    A WebSocket has no framing but its own (`tell`). `allowed`: whose pages may read it (tenants/embedding.py).
    """

    framing: Framing = Framing.H5
    language: str
    request_id: str
    offset: int = 0
    allowed: str = ANYBODY


def cors_headers(allowed: str) -> list[tuple[bytes, bytes]]:
    """Return the API's own CORS headers as ASGI wants them: a preflight and an answer alike have them all."""
    headers = {**cors_headers_of(allowed), **PREFLIGHT_HEADERS}
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def _head(reader: Reader, answer: Answer | None) -> Mapping[str, Any]:
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
        (b"x-request-id", reader.request_id.encode()),
        *cors_headers(reader.allowed),
    ]
    if answer is not None:
        headers.append((b"x-message-id", str(answer.message_id).encode()))
        headers.append((b"x-conversation-id", str(answer.conversation_id).encode()))
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _body(data: bytes, *, more: bool = True) -> Mapping[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def _failure(reader: Reader, failure: ProductError) -> bytes:
    with translation.override(reader.language):
        body = failure.body(reader.request_id)
    return frames.error_event(body) if reader.framing is Framing.H5 else frames.error_frame(body)


async def refuse(send: Send, reader: Reader, failure: ProductError) -> None:
    """Send a refusal. The status is 200: a mini-program's chunk callback sees nothing of other answers."""
    await send(_head(reader, None))
    await send(_body(_failure(reader, failure)))
    await send(_body(b"", more=False))


async def stream(send: Send, receive: Receive, reader: Reader, answer: Answer) -> None:
    """Send `answer` until it ends or the reader leaves; the generation goes on without the reader."""
    with answer.read(gap=0.0 if reader.framing is Framing.H5 else READ_GAP):
        await _stream(send, receive, reader, answer)


async def _stream(send: Send, receive: Receive, reader: Reader, answer: Answer) -> None:
    await send(_head(reader, answer))
    write = _write_h5 if reader.framing is Framing.H5 else _write_mini_program
    await attend(send, receive, answer, lambda outlet: write(outlet, reader, answer))


async def attend(
    send: Send, receive: Receive, answer: Answer, write: Callable[[Send], Coroutine[Any, Any, None]]
) -> bool:
    """Run `write` until it is done, or the reader leaves or takes nothing; return whether it was done."""
    outlet = _Outlet(send)
    writer = asyncio.ensure_future(write(outlet.send))
    # Nothing tells a writer that its client has left, unless someone waits for it.
    watcher = asyncio.ensure_future(_departure(receive))
    try:
        while not (await asyncio.wait({writer, watcher}, timeout=STUCK_AFTER, return_when=asyncio.FIRST_COMPLETED))[0]:
            if outlet.is_stuck():
                log.info("reader_stuck", message_id=str(answer.message_id))
                break
    finally:
        watcher.cancel()
        writer.cancel()
        results = await asyncio.gather(writer, watcher, return_exceptions=True)
    for result in results:
        # A connection that broke while we wrote has left, like one that said so.
        if isinstance(result, Exception) and not isinstance(result, OSError):
            raise result
    return results[0] is None


class _Outlet:
    """A connection's `send`, and whether it is waiting for the other side."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = self._taken = self._seen = 0

    async def send(self, event: Mapping[str, Any]) -> None:
        """Send; wait while the connection takes nothing."""
        self._begun += 1
        await self._send(event)
        self._taken += 1

    def is_stuck(self) -> bool:
        """Whether it still waits, as it did when this was asked the last time. No clock is read for each chunk."""
        is_waiting, before = self._begun > self._taken, self._seen
        self._seen = self._begun if is_waiting else 0
        return is_waiting and self._begun == before


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write_h5(send: Send, reader: Reader, answer: Answer) -> None:
    """Send the upstream's own chunks as soon as they come; what is ours between them is comments and named events."""
    seen = await _skip_chunks(send, reader, answer) if reader.offset else 0
    while True:
        new = answer.chunks[seen : seen + MOST_CHUNKS]
        if new:
            seen += len(new)
            await send(_body(b"".join(new)))
        elif answer.ending is not None:
            break
        elif not await answer.grown(seen, within=PING_AFTER):
            await send(_body(frames.PING))
    ending = answer.ending
    tail = frames.receipt_event(ending.receipt) if ending.receipt else b""
    tail += frames.DONE if ending.failure is None else _failure(reader, ending.failure)
    await send(_body(tail))
    await send(_body(b"", more=False))


async def _skip_chunks(send: Send, reader: Reader, answer: Answer) -> int:
    """Pass over the chunks that the reader has, sending the rest of one that it has in part; return how many."""
    left = reader.offset
    seen = 0
    while left > 0:
        if seen == len(answer.chunks):
            if answer.ending is not None:
                break
            if not await answer.grown(seen, within=PING_AFTER):
                await send(_body(frames.PING))
            continue
        text = answer.texts[seen]
        seen += 1
        if len(text) > left:
            await send(_body(answer.chunk_of(text[left:])))
        left -= len(text)
    return seen


class _Cursor:
    """A reader's place in the text of an answer."""

    def __init__(self, answer: Answer, offset: int) -> None:
        self._answer = answer
        self._seen = 0
        self._skip = offset

    @property
    def is_behind(self) -> bool:
        """Whether there is more to take."""
        return self._seen < len(self._answer.texts)

    def take(self, enough: int) -> str:
        """Return what follows, in whole chunks: `enough` characters or a little more, "" where there is nothing."""
        texts, found, length = self._answer.texts, [], 0
        while length < enough and self._seen < len(texts):
            text = texts[self._seen]
            self._seen += 1
            if self._skip:
                text, self._skip = text[self._skip :], max(0, self._skip - len(text))
            found.append(text)
            length += len(text)
        return "".join(found)

    async def grown(self, *, within: float) -> bool:
        """Wait until there is more to take, or the end; False after `within` seconds without."""
        return await self._answer.grown(self._seen, within=within)


class _Pacer:
    """Sends mini-program frames no closer together than the framing allows."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._last = -math.inf

    async def send(self, frame: bytes, *, gap: float = FRAME_GAP) -> None:
        """Send `frame` as a body chunk of its own, at least `gap` seconds after the one before."""
        await self.gap(gap)
        await self._send(_body(frame))
        self._last = self._loop.time()

    async def gap(self, gap: float = FRAME_GAP) -> None:
        """Wait until `gap` seconds after the last frame: what arrives meanwhile is joined to the next."""
        wait = self._last + gap - self._loop.time()
        if wait > 0:
            await asyncio.sleep(wait)


async def _write_mini_program(send: Send, reader: Reader, answer: Answer) -> None:
    """Send frames that clients can take which parse each network chunk on its own."""
    pacer = _Pacer(send)
    await pacer.send(frames.first_frame(str(answer.message_id), str(answer.conversation_id)))
    cursor, text = _Cursor(answer, reader.offset), ""
    while True:
        text += cursor.take(frames.MAX_ESCAPED - len(text))
        if text:
            await pacer.gap()
            text += cursor.take(frames.MAX_ESCAPED - len(text))
            frame, text = frames.take_frame(text)
            await pacer.send(frame)
        elif not cursor.is_behind and answer.ending is not None:
            break
        elif not await cursor.grown(within=HEARTBEAT_AFTER):
            await pacer.send(frames.HEARTBEAT)
    await _end_mini_program(send, pacer, reader, answer.ending)


async def _end_mini_program(send: Send, pacer: _Pacer, reader: Reader, ending: Ending) -> None:
    if ending.receipt:
        await pacer.send(frames.receipt_frame(ending.receipt))
    last = frames.END if ending.failure is None else _failure(reader, ending.failure)
    await pacer.send(last, gap=SILENCE_BEFORE_END)
    await send(_body(b"", more=False))


async def tell(send: Callable[[str], Awaitable[None]], reader: Reader, answer: Answer, *, ref: str) -> None:
    """Send `answer` as the events of a WebSocket, until its end; `ref` is the client's own word for its request.

    The caller counts as the answer's reader.
    """
    events = frames.Events(message_id=str(answer.message_id), ref=ref)
    await send(events.started(str(answer.conversation_id)))
    cursor = _Cursor(answer, reader.offset)
    while True:
        if text := cursor.take(MOST_CHARACTERS):
            await send(events.text(text))
            # What comes meanwhile is joined to the next, as in the mini-program's frames.
            await asyncio.sleep(FRAME_GAP)
        elif not cursor.is_behind and answer.ending is not None:
            break
        elif not await cursor.grown(within=HEARTBEAT_AFTER):
            await send(events.heartbeat())
    if answer.ending.receipt:
        await send(events.receipt(answer.ending.receipt))
    await send(events.end() if answer.ending.failure is None else failure_event(reader, answer.ending.failure, events))


def failure_event(reader: Reader, failure: ProductError, events: frames.Events) -> str:
    """Return the event of a WebSocket that refuses, or breaks off."""
    with translation.override(reader.language):
        return events.failure(failure.body(reader.request_id))
