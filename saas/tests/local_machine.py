"""What the launcher's tests share: a folder that the database's user may enter, and `manage.py up` as a child."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
LAST_LINE = "Ctrl-C ends everything; the data stays."
# What the tests' own servers are known by: the launcher must not see them.
OURS = (
    "DATABASE_URL",
    "REDIS_URL",
    "SECRET_KEY",
    "ENCRYPTION_KEYS",
    "OPENAI_BASE_URL",
    "OPENAI_API_KEY",
    "OPENAI_MODEL",
)


def clean_environment(**own: str) -> dict[str, str]:
    """Return the environment of someone who has set nothing but `own`."""
    hidden = {*OURS, *(f"{name}_FILE" for name in OURS), "PORT", "BANYAN_VAR", "DJANGO_SETTINGS_MODULE", "STATIC_ROOT"}
    return {**{name: value for name, value in os.environ.items() if name not in hidden}, **own}


class Up:
    """A running `manage.py up`; its lines are read as they come."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up"],
            cwd=ROOT,
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with self.process.stdout or open(os.devnull) as output:  # noqa: PTH123
            for line in output:
                self._queue.put(line.strip())
        self._queue.put(None)

    def wait_for(self, text: str, *, seconds: float = 180) -> str:
        """Return the first line from now on that holds `text`; fail when the process ends before."""
        end = time.monotonic() + seconds
        while True:
            line = self._queue.get(timeout=max(0.1, end - time.monotonic()))
            if line is None:
                raise AssertionError("up ended:\n" + "\n".join(self.lines))
            self.lines.append(line)
            if text in line:
                return line

    def children(self) -> list[psutil.Process]:
        """Return every process that it has started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: signal.Signals = signal.SIGINT, *, seconds: float = 90) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


@contextmanager
def up(environment: Mapping[str, str]) -> Iterator[Up]:
    """Run `manage.py up` until it has shown its screen; end it with the block if the block has not."""
    running = Up(environment)
    try:
        running.wait_for(LAST_LINE)
        yield running
    finally:
        if running.process.poll() is None:
            running.end()


def refused(environment: Mapping[str, str]) -> tuple[int, str]:
    """Run `manage.py up` where it cannot start; return the exit code and what it said on standard error."""
    done = subprocess.run(
        [sys.executable, "manage.py", "up"],
        cwd=ROOT,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr
