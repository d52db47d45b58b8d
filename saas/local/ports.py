"""Free ports on 127.0.0.1, the same ones at every start where they are still free."""

import json
import socket
from pathlib import Path
from typing import Final

from saas.local.problem import StartError

HOST: Final = "127.0.0.1"
HIGHEST: Final = 65535


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a connection that lingers from the last run does not make the port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def listens(port: int) -> bool:
    """Tell whether a server takes connections on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((HOST, port)) == 0


def free_port() -> int:
    """Return a port that the system says is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def web_port(text: str) -> int:
    """Return the port that PORT asks for; StartError if it is none, or taken."""
    try:
        port = int(text)
    except ValueError:
        port = 0
    if not 0 < port <= HIGHEST:
        raise StartError(f"PORT must be a number from 1 to {HIGHEST}, not {text!r}.")
    if not is_free(port):
        raise StartError(
            f"Port {port} of {HOST} is in use or not allowed; stop what listens there, or set another PORT."
        )
    return port


class PortBook:
    """Remembers each server's port in a file, so that a running shell's URLs survive a restart."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def port(self, name: str) -> int:
        """Return the server's port of last time if it is free, else a new one, and remember it."""
        book = self._read()
        port = book.get(name)
        if port is None or not is_free(port):
            port = free_port()
            while port in book.values():
                port = free_port()
            self.path.write_text(json.dumps({**book, name: port}))
        return port

    def _read(self) -> dict[str, int]:
        try:
            book = json.loads(self.path.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        if not isinstance(book, dict):
            return {}
        return {str(name): port for name, port in book.items() if isinstance(port, int)}
