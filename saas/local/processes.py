"""Starting, ending and recognising processes.

A process is known by its id and its start time: the system gives an id again, but not the same start.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import psutil

from saas.local.folders import Account

_PR_SET_PDEATHSIG: Final = 1
LOG_LIMIT: Final = 10_000_000


@dataclass(frozen=True)
class Service:
    """A program to keep running: what, as whom, and how it is asked to end."""

    name: str
    command: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = Path("/")
    account: Account = Account(uid=None)  # noqa: RUF009  frozen
    stop_signal: signal.Signals = signal.SIGTERM
    patience: float = 10.0  # seconds between asking it to end and ending it


def _dies_with_us(stop_signal: signal.Signals) -> Callable[[], None] | None:
    """Return what a child runs before its program so that our own death ends it too (Linux only)."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(stop_signal))
        if os.getppid() != parent:  # we died before the line above
            os._exit(1)

    return ask


def start(service: Service) -> subprocess.Popen[bytes]:
    """Start a service, in a session of its own so that Ctrl-C reaches only us; its output goes to its log."""
    if service.log.exists() and service.log.stat().st_size > LOG_LIMIT:
        service.log.replace(service.log.with_suffix(".log.1"))
    with service.log.open("ab") as log:
        return subprocess.Popen(
            service.command,
            env={**os.environ, **service.env},
            cwd=service.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_dies_with_us(service.stop_signal),  # noqa: PLW1509  the supervisor has no threads
            **service.account.popen_options(),
        )


def stop(process: subprocess.Popen[bytes], service: Service, *, patience: float | None = None) -> None:
    """Ask a child to end, wait for it, end it."""
    if process.poll() is not None:
        return
    process.send_signal(service.stop_signal)
    try:
        process.wait(service.patience if patience is None else patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tail(log: Path, lines: int = 5) -> str:
    """Return the last lines of a log, for the person who wonders."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4000))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])


@dataclass(frozen=True)
class Trace:
    """A child as the record keeps it."""

    name: str
    pid: int
    started: float  # seconds since the epoch, as the system tells it
    stop_signal: int
    patience: float

    def process(self) -> psutil.Process | None:
        """Return the process if it still runs and is the same one."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 0.01  # noqa: PLR2004  the clock ticks at 10 ms
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


class Record:
    """The children of a supervisor, in a file, so that the next one can end what a killed one left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.traces: list[Trace] = []

    def add(self, process: subprocess.Popen[bytes], service: Service) -> None:
        """Note a child that has just been started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            started = psutil.Process(process.pid).create_time()
            trace = Trace(service.name, process.pid, started, int(service.stop_signal), service.patience)
            self.traces = [*(t for t in self.traces if t.name != service.name), trace]
            self._write()

    def forget(self) -> None:
        """Note that no child is left."""
        self.traces = []
        self.path.unlink(missing_ok=True)

    def end_leftovers(self) -> list[str]:
        """End what an earlier supervisor left, last started first; return the names of what was running."""
        ended = []
        for trace in reversed(self._read()):
            process = trace.process()
            if process is not None:
                _end(process, trace)
                ended.append(trace.name)
        self.path.unlink(missing_ok=True)
        return ended

    def _write(self) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(trace) for trace in self.traces]))
        fresh.replace(self.path)

    def _read(self) -> list[Trace]:
        try:
            return [Trace(**row) for row in json.loads(self.path.read_text())]
        except (FileNotFoundError, ValueError, TypeError):
            return []


def _end(process: psutil.Process, trace: Trace) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(trace.stop_signal)
        try:
            process.wait(trace.patience)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(5)


def wait_until(ready: Callable[[], bool], *, seconds: float, every: float = 0.05) -> bool:
    """Call `ready` until it is true or the time is over; return which."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ready():
            return True
        time.sleep(every)
    return ready()
