"""A web process that does what the test tells it, step by step: for what stands in front of one.

with Web() as web:
    …                                  # a client sends a request to the proxy under test
    request = web.next_request()       # as it arrived here
    request.begin(200, {"Content-Type": "text/event-stream"})
    request.chunk(b"…")                # written now; nothing more comes before the next call
    request.end()
"""

import contextlib
import queue
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

PATIENCE_SECONDS = 20


@dataclass
class Received:
    """A request, and the way to answer it. Header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: socket.socket
    answered: threading.Event = field(default_factory=threading.Event)

    def reply(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Answer in one piece."""
        self._head(status, {**headers, "Content-Length": str(len(body))})
        self.connection.sendall(body)
        self.answered.set()

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin a chunked answer."""
        self._head(status, {**headers, "Transfer-Encoding": "chunked"})

    def chunk(self, data: bytes) -> None:
        """Write one chunk."""
        self.connection.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def end(self) -> None:
        """End a chunked answer."""
        self.connection.sendall(b"0\r\n\r\n")
        self.answered.set()

    def switch_protocols(self) -> socket.socket:
        """Agree to a WebSocket; what follows on the connection is the caller's."""
        self._head(101, {"Upgrade": "websocket", "Connection": "Upgrade"})
        return self.connection

    def client_is_gone(self) -> bool:
        """Wait until the other side closes the connection; raises TimeoutError if it does not."""
        return self.connection.recv(1) == b""

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self.connection.sendall("\r\n".join(lines).encode())


class Web:
    """Listens on a free port of the loopback, keeps connections open, hands out requests in the order of arrival."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._requests: queue.Queue[Received] = queue.Queue()
        self._connections: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for connection in (self._listener, *self._connections):
            # Wakes the thread that waits on it, which `close` alone would not.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def next_request(self) -> Received:
        """Return the next request; raises queue.Empty if none comes."""
        return self._requests.get(timeout=PATIENCE_SECONDS)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE_SECONDS)
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while request := _read_request(connection):
                self._requests.put(request)
                request.answered.wait()
        except OSError:
            return


def _read_request(connection: socket.socket) -> Received | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    head, body = data.split(b"\r\n\r\n", 1)
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    method, target, _ = first.split(" ")
    return Received(method, target, headers, body, connection)
