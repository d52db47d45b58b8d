"""A provider that costs nearly nothing: `python -m bench.upstream --port 9000`.

It speaks OpenAI's chat completions, streamed, for one model, `paced:N:MS`: N deltas, MS milliseconds apart, or at once
where MS is 0. Each delta's text is `@T `, T the microseconds of the machine's monotonic clock when it was sent, so that
whoever receives it, on the same machine, knows how old it is.

One timer serves all streams of a pace, and they take turns within it: on the wire there is an even flow, not a burst.
"""

import argparse
import asyncio
import re
import time
from typing import Final, cast

import uvloop

HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_CHUNK: Final = (
    b'data: {"id":"chatcmpl-8fK2hQ0vN3","object":"chat.completion.chunk","created":1764000000,"model":"paced",'
    b'"system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":{%b},"logprobs":null,"finish_reason":%b}],'
    b'"usage":%b}\n\n'
)
_MODEL: Final = re.compile(rb'"model"\s*:\s*"(?:[^"/]*/)?paced:(\d+):(\d+)"')
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_TICK: Final = 0.001  # seconds


def _framed(event: bytes) -> bytes:
    """Return `event` as a chunk of HTTP's chunked coding."""
    return b"%x\r\n%b\r\n" % (len(event), event)


_OPENING: Final = _framed(_CHUNK % (b'"role":"assistant","content":""', b"null", b"null"))


def _delta() -> bytes:
    stamp = time.monotonic_ns() // 1000
    return _framed(_CHUNK % (b'"content":"@%d "' % stamp, b"null", b"null"))


def _ending(deltas: int) -> bytes:
    usage = b'{"prompt_tokens":20,"completion_tokens":%d,"total_tokens":%d}' % (deltas, deltas + 20)
    return (
        _framed(_CHUNK % (b"", b'"stop"', b"null"))
        + _framed(b'data: {"id":"chatcmpl-8fK2hQ0vN3","object":"chat.completion.chunk","created":1764000000,'
                  b'"model":"paced","choices":[],"usage":%b}\n\n' % usage)
        + _framed(b"data: [DONE]\n\n")
        + b"0\r\n\r\n"
    )  # fmt: skip


class _Pace:
    """All streams of one pace: a ring of slots of a millisecond, one slot's streams sent at each tick."""

    def __init__(self, milliseconds: int) -> None:
        self._length = milliseconds
        self._slots: dict[int, set[_Provider]] = {}
        self._next, self._joined, self._streams = 0, 0, 0
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()
        self._is_ticking = False

    def join(self, stream: "_Provider") -> int:
        """Have `stream` send a delta each round from now on, at a place of its own; return the place."""
        # A step without a common divisor fills the ring evenly.
        place = self._joined * 7919 % self._length
        self._slots.setdefault(place, set()).add(stream)
        self._joined += 1
        self._streams += 1
        if not self._is_ticking:
            self._is_ticking = True
            self._due = self._loop.time()
            self._loop.call_soon(self._tick)
        return place

    def leave(self, stream: "_Provider", place: int) -> None:
        """Forget `stream`."""
        self._slots[place].remove(stream)
        self._streams -= 1

    def _tick(self) -> None:
        while self._due <= self._loop.time():
            for stream in list(self._slots.get(self._next, ())):
                stream.send_next()
            self._next = (self._next + 1) % self._length
            self._due += _TICK
        self._is_ticking = self._streams > 0
        if self._is_ticking:
            self._loop.call_at(self._due, self._tick)


_paces: dict[int, _Pace] = {}


class _Provider(asyncio.Protocol):
    """One connection: requests in, one after the other; a stream out for each."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._left = self._deltas = self._place = 0
        self._pace: _Pace | None = None
        self._is_last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection's other end."""
        # uvloop's is none by its class, and is one by what it does.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request; answer once it is whole."""
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(self._received, 0, head + 2)
        end = head + 4 + (int(length[1]) if length else 0)
        if len(self._received) >= end:
            request = bytes(self._received[:end])
            del self._received[:end]
            self._answer(request)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's name
        """Stop sending: the client has left."""
        self._stop()

    def _answer(self, request: bytes) -> None:
        wanted = _MODEL.search(request)
        self._is_last = b"\r\nConnection: close\r\n" in request
        if wanted is None:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")
            self._stop()
            return
        self._left = self._deltas = int(wanted[1])
        pace = int(wanted[2])
        self._transport.write(HEAD + _OPENING)
        if not pace:
            self._transport.write(b"".join(_delta() for _ in range(self._deltas)) + _ending(self._deltas))
            self._stop()
            return
        self.send_next()
        if self._left:
            self._pace = _paces.setdefault(pace, _Pace(pace))
            self._place = self._pace.join(self)

    def send_next(self) -> None:
        """Send the next delta, and after the last one the end."""
        self._left -= 1
        if self._left:
            self._transport.write(_delta())
        else:
            self._transport.write(_delta() + _ending(self._deltas))
            self._stop()

    def _stop(self) -> None:
        if self._pace is not None:
            self._pace.leave(self, self._place)
            self._pace = None
        if self._is_last:
            self._transport.close()


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Provider, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
