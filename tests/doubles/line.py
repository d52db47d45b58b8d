"""A line to a server that can be cut: what is under way on it breaks off, as where a phone loses its network."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Line:
    """Carries bytes both ways between whoever connects to `port` and the server behind it."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._open = set[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._listen, daemon=True).start()

    def cut(self) -> None:
        """Break off every connection there is; new ones are carried as before."""
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Carry nothing any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                near, _address = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._server_port))
                self._open |= {near, far}
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()  # the other direction closes the other end
        self._open.discard(source)


@contextmanager
def line_to(server_port: int) -> Iterator[Line]:
    """Lay a line until the block ends."""
    line = Line(server_port)
    try:
        yield line
    finally:
        line.close()
