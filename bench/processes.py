"""Processes on cores of their own, and what they use: CPU, and memory that is theirs."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from saas.local.ports import listens
from saas.local.processes import tail, wait_until

START_SECONDS: Final = 180
_cores = sorted(os.sched_getaffinity(0))
# The first core is the measured server's own; load, database, broker, worker and upstream share the last.
SERVER_CORE, LOAD_CORE = {_cores[0]}, {_cores[-1]}
ALL_CORES: Final = set(_cores)


@contextmanager
def process(  # noqa: PLR0913  what a process is started with
    command: Sequence[str],
    *,
    port: int = 0,
    cores: set[int],
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[psutil.Process]:
    """Run `command` on `cores` until the block ends; where it has a port, once that listens."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=folder,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),  # noqa: PLW1509  nothing else runs here yet
        )
    try:
        if port:
            _wait_for(port, started, log)
        yield psutil.Process(started.pid)
    finally:
        family = [started.pid, *(child.pid for child in _family(started.pid))]
        started.terminate()
        with suppress(subprocess.TimeoutExpired):
            started.wait(15)
        for pid in family:
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()
        started.wait()


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _wait_for(port: int, started: subprocess.Popen[bytes], log: Path) -> None:
    def is_over() -> bool:
        return started.poll() is not None or listens(port)

    wait_until(is_over, seconds=START_SECONDS)
    if not listens(port):
        message = f"nothing listens on {port}; {log} says: {tail(log, lines=20)}"
        raise RuntimeError(message)


def cpu_seconds(root: psutil.Process) -> float:
    """Return the CPU seconds, user's and kernel's, of a process and all of its children so far."""
    times = [member.cpu_times() for member in (root, *root.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def memory(root: psutil.Process) -> int:
    """Return the bytes of memory that are a process's and its children's own."""
    return sum(member.memory_full_info().uss for member in (root, *root.children(recursive=True)))
