"""Runs a command beside a PostgreSQL and a Valkey of its own: `python -m saas.local.testing -- pytest -n 2`.

Both listen on free ports and keep their data in a temporary folder that goes with them.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from saas.local.environment import key_files
from saas.local.folders import database_account
from saas.local.ports import free_port
from saas.local.postgres import Postgres, find_programs, programs_for
from saas.local.problem import StartError
from saas.local.processes import Service, start, stop, tail, wait_until
from saas.local.valkey import Valkey, find_program

# Nothing of a test's database needs to survive a crash.
FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "400",
    "shared_buffers": "128MB",
}
# Tests leave open holds behind, and none may expire in the middle of another test that counts what expires.
PATIENT = {"HOLD_SECONDS": "3600"}


@contextmanager
def servers(folder: Path, *, settings: dict[str, str] = FAST) -> Iterator[dict[str, str]]:
    """Start both servers in `folder`, PostgreSQL with `settings`; yield the variables that ours need to find them."""
    account = database_account()
    postgres = Postgres(
        programs=programs_for(account, find_programs(), folder),
        folder=folder / "postgres",
        log=folder / "postgres.log",
        port=free_port(),
        password="only-for-tests",  # noqa: S106  a server that lives as long as the tests, on this machine only
        account=account,
        settings=settings,
    )
    valkey = Valkey(
        program=find_program(),
        folder=folder / "valkey",
        log=folder / "valkey.log",
        port=free_port(),
        password="only-for-tests",  # noqa: S106  as above
    )
    postgres.create()
    running: list[tuple[subprocess.Popen[bytes], Service]] = []
    try:
        for server in (postgres, valkey):
            service = server.service()
            running.append((start(service), service))
            if not wait_until(server.is_ready, seconds=30):
                raise StartError(f"{service.name} did not start: {tail(service.log)}")
        postgres.create_database()
        yield {"DATABASE_URL": postgres.url, "REDIS_URL": valkey.url}
    finally:
        for process, service in reversed(running):
            stop(process, service)


def run(command: Sequence[str]) -> int:
    """Run the command with servers of its own; return its exit code."""
    folder = Path(tempfile.mkdtemp(prefix="banyan-test-"))
    folder.chmod(0o711)  # the database's user must get to its data
    try:
        secrets = folder / "secrets"
        secrets.mkdir(mode=0o700)
        (folder / "static").mkdir()
        with servers(folder) as urls:
            env = {**os.environ, **urls, **key_files(secrets), "BANYAN_VAR": str(folder), **PATIENT}
            return subprocess.run(command, env=env, check=False).returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(143)  # runs the finally blocks above


def main() -> None:
    """Take the command after `--`."""
    command = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    if not command:
        sys.exit("Usage: python -m saas.local.testing -- COMMAND")
    signal.signal(signal.SIGTERM, _end)
    try:
        sys.exit(run(command))
    except StartError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
