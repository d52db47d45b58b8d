"""An HTTP client that shows what others hide: the body chunks as they were sent, and when each came."""

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode


@dataclass
class Chunk:
    """One chunk of a chunked body, and the seconds since the request was sent."""

    data: bytes
    at: float


@dataclass
class Reply:
    """A reply read to its end."""

    status: int
    headers: dict[str, str]
    chunks: list[Chunk]

    @property
    def body(self) -> bytes:
        return b"".join(chunk.data for chunk in self.chunks)


@dataclass
class RawConnection:
    """One request on a connection of its own; iterate over `chunks()`, or `close()` at any byte."""

    port: int
    host: str = "127.0.0.1"
    timeout: float = 30.0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    _buffer: bytes = b""
    _started: float = 0.0

    def __enter__(self) -> Self:
        self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=self.timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, method: str, target: str, *, headers: dict[str, str], body: bytes = b"") -> None:
        """Send the request, whole."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self._started = time.monotonic()
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def read_head(self) -> None:
        """Read up to the blank line."""
        head = self._read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        self.status = int(head[0].split()[1])
        self.headers = {k.strip().lower(): v.strip() for k, v in (line.split(":", 1) for line in head[1:] if line)}

    def chunks(self) -> Iterator[Chunk]:
        """Yield the body's chunks as they were sent."""
        if "content-length" in self.headers:
            yield Chunk(self._read_exactly(int(self.headers["content-length"])), self._now())
            return
        if self.headers.get("transfer-encoding") != "chunked":
            return
        while size := int(self._read_until(b"\r\n").strip(), 16):
            data = self._read_exactly(size)
            yield Chunk(data, self._now())
            self._read_exactly(2)

    def _now(self) -> float:
        return time.monotonic() - self._started

    def _more(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            message = "the server closed the connection in the middle of a reply"
            raise ConnectionError(message)
        self._buffer += data

    def _read_until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._more()
        found, self._buffer = self._buffer.split(mark, 1)
        return found + mark

    def _read_exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found


def request_bytes(
    method: str, params: dict[str, Any], *, as_json: bool = False, path: str = "/api/chat/stream"
) -> tuple[str, dict[str, str], bytes]:
    """Return target, headers and body that carry `params` by the method's usual means."""
    if method == "GET":
        return f"{path}?{urlencode(params)}", {}, b""
    if as_json:
        return path, {"Content-Type": "application/json"}, json.dumps(params).encode()
    return path, {"Content-Type": "application/x-www-form-urlencoded"}, urlencode(params).encode()


def ask(
    port: int,
    host: str,
    params: dict[str, Any],
    *,
    token: str = "",
    method: str = "POST",
    as_json: bool = True,
    headers: dict[str, str] | None = None,
) -> Reply:
    """Send one chat request and read its reply to the end."""
    target, sent, body = request_bytes(method, params, as_json=as_json)
    sent |= headers or {}
    if token:
        sent["Authorization"] = f"Bearer {token}"
    with RawConnection(port, host) as connection:
        connection.send(method, target, headers=sent, body=body)
        connection.read_head()
        chunks = list(connection.chunks())
    return Reply(connection.status, connection.headers, chunks)
