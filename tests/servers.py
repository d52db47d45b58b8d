"""Starts the real servers that tests talk to, each as a process of its own on a free port."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from django.db import connection

from saas.local.ports import listens

if TYPE_CHECKING:
    from django.db.backends.postgresql.base import DatabaseWrapper

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def database_url_of_this_test() -> str:
    """Return the URL of the database that this test process made."""
    found = connection.settings_dict
    password = f":{found['PASSWORD']}" if found["PASSWORD"] else ""
    return f"postgres://{found['USER']}{password}@{found['HOST']}:{found['PORT']}/{found['NAME']}"


def forget_connections() -> None:
    """Drop this process's connections to the database, after something ended them at the other side."""
    connection.close()
    cast("DatabaseWrapper", connection).close_pool()


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return once something listens on `port`; raise if the process ends before."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            message = f"the server ended with {process.returncode} before it listened: {process.args!r}"
            raise RuntimeError(message)
        if listens(port):
            return
        time.sleep(0.05)
    message = f"nothing listens on {port} after {START_SECONDS} s"
    raise TimeoutError(message)


@contextmanager
def running(
    arguments: list[str], port: int, *, log: Path | None = None, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `arguments` with this Python until the block ends; it must listen on `port`. `log` gets what it prints."""
    # A variable given here also goes before the file of that name that `make test` may have named.
    inherited = {name: value for name, value in os.environ.items() if name.removesuffix("_FILE") not in environment}
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb")) if log else None
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**inherited, **environment},
            stdout=output,
            stderr=subprocess.STDOUT if log else None,
        )
        yield from _until_done(process, port)


def _until_done(process: subprocess.Popen[bytes], port: int) -> Iterator[subprocess.Popen[bytes]]:
    try:
        wait_for_port(port, process)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def web_server(kind: str, *, log: Path | None = None, **environment: str) -> Iterator[int]:
    """Run the application under uvicorn or daphne, on this test's database; yields the port."""
    with web_process(kind, log=log, **environment) as (port, _process):
        yield port


@contextmanager
def web_process(
    kind: str, *, log: Path | None = None, **environment: str
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Do the same for a test that kills the process; yields it too."""
    port = free_port()
    serve = {
        "uvicorn": ["-m", "uvicorn", "saas.asgi:application", "--port", str(port)],
        # Its own access log would have the query string, and no setting of ours reaches it (docs/deployment.md).
        "daphne": ["-m", "daphne", "--access-log", "/dev/null", "-p", str(port), "saas.asgi:application"],
    }[kind]
    values = {"DATABASE_URL": database_url_of_this_test(), "DRAIN_SECONDS": "5", **environment}
    with running(serve, port, log=log, **values) as process:
        yield port, process
