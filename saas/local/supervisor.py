"""Keeps services running: starts them, starts again what dies, ends them in the reverse of the wished order.

Signals only set a flag; every wait of the supervisor looks at it, so that nothing is cut off half-way.
"""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO, Final

from saas.local.problem import StartError
from saas.local.processes import Record, Service, start, stop, tail

Say = Callable[[str], None]

STEADY: Final = 30.0  # seconds of life after which a death is the first again
LONGEST_PAUSE: Final = 30.0
_SECOND_SIGNAL: Final = 1.0  # make and the terminal may both send the first one


class Stopped(BaseException):
    """A signal asked us to end: as KeyboardInterrupt, no error, and not to be caught as one."""


class StopFlag:
    """Set by SIGINT, SIGTERM or SIGHUP; a second one, later, asks for haste."""

    def __init__(self) -> None:
        self.at: float | None = None
        self.haste = False

    def listen(self) -> None:
        """Take over the signals."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._set)

    def _set(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.at is None:
            self.at = now
        elif now - self.at > _SECOND_SIGNAL:
            self.haste = True

    def pause(self, seconds: float) -> None:
        """Sleep; raise Stopped as soon as we were asked to end."""
        end = time.monotonic() + seconds
        while True:
            if self.at is not None:
                raise Stopped
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.1))


def lock(path: Path) -> IO[str]:
    """Take the data folder for this supervisor; the lock ends with the process, however it ends."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        other = file.read().strip() or "unknown"
        file.close()
        raise StartError(
            f"Banyan already runs on the data folder {path.parent.parent} (process {other}); stop it first."
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


class _Child:
    """A service, its process, and how often it has died."""

    def __init__(self, service: Service, process: subprocess.Popen[bytes]) -> None:
        self.service = service
        self.process = process
        self.started = time.monotonic()
        self.deaths = 0
        self.again_at: float | None = None


class Supervisor:
    """The children, in the order of their starts."""

    def __init__(self, *, record: Record, flag: StopFlag, say: Say) -> None:
        self.record = record
        self.flag = flag
        self.say = say
        self._children: list[_Child] = []

    def run(self, service: Service) -> None:
        """Start a service and keep it."""
        self._children.append(_Child(service, self._start(service)))

    def wait_for(self, service: Service, ready: Callable[[], bool], *, seconds: float) -> None:
        """Wait until a service answers; StartError if it dies or is too slow."""
        child = next(child for child in self._children if child.service is service)
        end = time.monotonic() + seconds
        while not ready():
            code = child.process.poll()
            if code is not None:
                raise StartError(_last_words(service, f"ended with code {code}"))
            if time.monotonic() > end:
                raise StartError(_last_words(service, f"did not answer within {seconds:.0f} seconds"))
            self.flag.pause(0.05)

    def watch(self) -> None:
        """Start again what dies, until a signal raises Stopped."""
        while True:
            self.flag.pause(0.3)
            for child in self._children:
                self._look_after(child)

    def end(self) -> None:
        """End every child, last started first."""
        for child in reversed(self._children):
            if child.process.poll() is None:
                self.say(f"stopping {child.service.name}")
            self._end(child)
        self._children.clear()
        self.record.forget()

    def _end(self, child: _Child) -> None:
        if child.process.poll() is None:
            child.process.send_signal(child.service.stop_signal)
        end = time.monotonic() + child.service.patience
        while child.process.poll() is None and time.monotonic() < end and not self.flag.haste:
            time.sleep(0.02)
        stop(child.process, child.service, patience=0.5)

    def _start(self, service: Service) -> subprocess.Popen[bytes]:
        process = start(service)
        self.record.add(process, service)
        return process

    def _look_after(self, child: _Child) -> None:
        now = time.monotonic()
        if child.again_at is not None:
            if now >= child.again_at:
                child.again_at = None
                child.started = now
                child.process = self._start(child.service)
            return
        code = child.process.poll()
        if code is None:
            return
        child.deaths = 1 if now - child.started > STEADY else child.deaths + 1
        pause = min(LONGEST_PAUSE, 2.0 ** (child.deaths - 1))
        child.again_at = now + pause
        service = child.service
        self.say(f"{service.name} ended with code {code}; starting it again in {pause:.0f} s (see {service.log})")


def _last_words(service: Service, what: str) -> str:
    said = tail(service.log).splitlines()
    last = f" Its last line: {said[-1]}" if said else ""
    return f"{service.name} {what}; see {service.log}.{last}"
