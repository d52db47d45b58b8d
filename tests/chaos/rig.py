"""The whole product as processes that can be killed one by one, on servers of its own."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from saas.local.environment import key_files
from saas.local.folders import database_account
from saas.local.ports import free_port, listens
from saas.local.postgres import Postgres, find_programs, programs_for
from saas.local.processes import Service, start, stop, wait_until
from saas.local.valkey import Valkey, find_program
from tests.doubles.wechatpay import running_wechatpay

ROOT = Path(__file__).resolve().parents[2]
# Seconds that a hold lives without a sign of life here, and between sweeps: short, so that a run is.
LEASE, SWEEP = 15, 1


class Rig:
    """PostgreSQL, Valkey, the scripted upstream, web, worker and beat. Each may be killed, and started again.

    WeChat Pay's double is a thread of this process, so that a row may see what it was asked and have people pay.
    """

    def __init__(self, folder: Path) -> None:
        account = database_account()
        self._doubles = ExitStack()
        self.wechat = self._doubles.enter_context(running_wechatpay())
        self.folder = folder
        self.web_port, self.upstream_port = free_port(), free_port()
        self._postgres = Postgres(
            programs=programs_for(account, find_programs(), folder),
            folder=folder / "postgres",
            log=folder / "postgres.log",
            port=free_port(),
            password="only-for-tests",
            account=account,
            settings={"max_connections": "200"},
        )
        self._valkey = Valkey(
            program=find_program(),
            folder=folder / "valkey",
            log=folder / "valkey.log",
            port=free_port(),
            password="only-for-tests",
        )
        secrets = folder / "secrets"
        secrets.mkdir(mode=0o700)
        self.environment = {
            **key_files(secrets),
            "BANYAN_VAR": str(folder),
            "DATABASE_URL": self._postgres.url,
            "REDIS_URL": self._valkey.url,
            "HOLD_SECONDS": str(LEASE),
            "SWEEP_SECONDS": str(SWEEP),
            "DATABASE_TIMEOUT": "1",
            "DRAIN_SECONDS": "10",
            "WECHAT_PAY_API_URL": self.wechat.url,
        }
        web = ["uvicorn", "saas.asgi:application", "--port", str(self.web_port), "--no-access-log"]
        upstream = ["tests.doubles.upstream", "--port", str(self.upstream_port)]
        worker = ["celery", "-A", "saas", "worker", "--concurrency=2", "--without-gossip", "--without-mingle"]
        beat = ["celery", "-A", "saas", "beat", "--pidfile=", f"--schedule={folder / 'beat'}"]
        self._services = {"postgres": self._postgres.service(), "valkey": self._valkey.service()}
        for name, arguments in {"upstream": upstream, "web": web, "worker": worker, "beat": beat}.items():
            command = [sys.executable, "-m", *arguments]
            self._services[name] = Service(name, command, folder / f"{name}.log", env=self.environment, cwd=ROOT)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._lock, self._over = threading.Lock(), threading.Event()
        self._watch = threading.Thread(target=self._keep_running)
        self.revived: list[str] = []

    def __enter__(self) -> Self:
        self._postgres.create()
        self.start("postgres", "valkey")
        self._postgres.create_database()
        os.environ |= self.environment
        subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity=0"], cwd=ROOT, check=True)
        self.start("upstream", "web", "worker", "beat")
        self._watch.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._watch.is_alive():
            self._watch.join()
        for name in reversed(self._services):
            if name in self._running:
                stop(self._running[name], self._services[name], patience=5)
        self._doubles.close()

    @property
    def upstream_url(self) -> str:
        """The scripted upstream's base URL."""
        return f"http://127.0.0.1:{self.upstream_port}/v1"

    def start(self, *names: str) -> None:
        """Start services and wait until each listens."""
        for name in names:
            with self._lock:
                self._running[name] = start(self._services[name])
            if not wait_until(self._ready(name), seconds=60):
                raise RuntimeError(f"{name} did not start: see {self._services[name].log}")

    def kill(self, name: str) -> None:
        """Kill a service as a power cut would; PostgreSQL at once, as its own 'immediate' does."""
        with self._lock:
            process = self._running.pop(name)
        process.send_signal(signal.SIGQUIT if name == "postgres" else signal.SIGKILL)
        process.wait()

    def terminate(self, name: str) -> None:
        """Ask a service to end, and wait for it."""
        with self._lock:
            process = self._running.pop(name)
        stop(process, self._services[name], patience=30)

    def _keep_running(self) -> None:
        """Start worker and beat again where they end by themselves, as docker-compose and `manage.py up` do.

        Celery's worker does: where the broker goes a second time just while it connects again, kombu asks a closed
        connection for its host. Whatever else ends by itself is a fault, and a row finds it.
        """
        while not self._over.wait(0.5):
            for name in ("worker", "beat"):
                with self._lock:
                    process = self._running.get(name)
                    if process is not None and process.poll() is not None:
                        self._running[name] = start(self._services[name])
                        self.revived.append(name)

    def _ready(self, name: str) -> Callable[[], bool]:
        ports = {"web": self.web_port, "upstream": self.upstream_port}
        if name in ports:
            return lambda: listens(ports[name])
        return {"postgres": self._postgres.is_ready, "valkey": self._valkey.is_ready}.get(name, lambda: True)

    def execute(self, statement: str) -> None:
        """Run a statement as the database's owner, from outside the product."""
        import psycopg  # noqa: PLC0415  the run's own process reads settings first

        with psycopg.connect(re.sub(r"/[^/]*$", "/postgres", self._postgres.url), autocommit=True) as owner:
            owner.execute(statement.encode())

    @contextmanager
    def blocking(self, statement: str, *values: Any) -> Iterator[Callable[[], None]]:
        """Yield what runs a statement from outside the product; its locks are held until the block ends."""
        import psycopg  # noqa: PLC0415  as above

        with psycopg.connect(self._postgres.url) as holder:

            def run() -> None:
                holder.execute(statement.encode(), values)

            yield run

    def flush_valkey(self) -> None:
        """Empty the broker, as a wrong command or a lost disk would."""
        import redis  # noqa: PLC0415  as above

        with redis.Redis.from_url(self._valkey.url) as client:
            client.flushall()


@contextmanager
def rig() -> Iterator[Rig]:
    """Run everything in a folder of its own; point this process's settings at it."""
    with tempfile.TemporaryDirectory(prefix="banyan-chaos-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the database's user must get to its data
        with Rig(folder) as running:
            yield running


def wait_for(condition: Callable[[], Any], what: str, *, seconds: float = 60) -> Any:
    """Return the condition's first true value; raise where there is none in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"did not happen in {seconds:.0f} s: {what}")
