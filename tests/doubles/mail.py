"""Mail servers that refuse, on the loopback interface, in RFC 5321's words: everybody, or one address."""

from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread


class _Refusal(StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"554 no service for you\r\n")


def _picky(unknown: str, taken: list[str]) -> type[StreamRequestHandler]:
    class Dialogue(StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 a test")
            for line in self.rfile:
                verb, argument = line[:4].upper(), line[5:].decode().strip()
                if verb == b"RCPT" and unknown in argument:
                    self._say("550 no such user here")
                elif verb == b"DATA":
                    self._say("354 go on")
                    while self.rfile.readline() != b".\r\n":
                        pass
                    self._say("250 taken")
                elif verb == b"QUIT":
                    self._say("221 bye")
                    return
                else:
                    if verb == b"RCPT":
                        taken.append(argument.removeprefix("TO:<").rstrip(">"))
                    self._say("250 ok")

        def _say(self, answer: str) -> None:
            self.wfile.write(f"{answer}\r\n".encode())

    return Dialogue


@contextmanager
def refusing_mail_server() -> Iterator[int]:
    """Run a server that answers 554 in place of a greeting; yield its port."""
    with _run(_Refusal) as port:
        yield port


@contextmanager
def picky_mail_server(*, unknown: str) -> Iterator[tuple[int, list[str]]]:
    """Run a server that refuses mail to one address; yield its port and the addresses that it took mail for."""
    taken: list[str] = []
    with _run(_picky(unknown, taken)) as port:
        yield port, taken


@contextmanager
def _run(handler: type[StreamRequestHandler]) -> Iterator[int]:
    with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()
