"""A mail server that greets nobody: RFC 5321's answer 554 in place of a greeting, on the loopback interface."""

from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread


class _Refusal(StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"554 no service for you\r\n")


@contextmanager
def refusing_mail_server() -> Iterator[int]:
    """Run the server; yield its port."""
    with ThreadingTCPServer(("127.0.0.1", 0), _Refusal) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()
