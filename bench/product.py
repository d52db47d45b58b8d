"""The whole product on servers of its own, with tenants, users and tokens: what is measured is what is sold."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from bench.load import Target
from bench.processes import LOAD_CORE, process
from saas.local.environment import key_files
from saas.local.ports import free_port
from saas.local.testing import servers

ROOT: Final = Path(__file__).resolve().parent.parent
# As an operator's server is, but for its size: what is committed is on disk.
DURABLE: Final = {"max_connections": "200", "shared_buffers": "256MB"}


@dataclass(frozen=True, kw_only=True)
class Customer:
    """A user: the tenant's host and the user's token."""

    host: str
    token: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Product:
    """PostgreSQL, Valkey and a Celery worker, all running; web processes are started as they are measured."""

    folder: Path
    environment: dict[str, str]
    # By tenant; every tenant has as many.
    customers: Sequence[Sequence[Customer]]
    upstream_port: int

    @contextmanager
    def web(self, cores: set[int], *, processes: int = 1) -> Iterator[tuple[int, psutil.Process]]:
        """Run the web processes on `cores`; yield their port, and what they are."""
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "saas.asgi:application", "--port", str(port), "--no-access-log"]
        command += ["--backlog", "4096", "--workers", str(processes)] if processes > 1 else ["--backlog", "4096"]
        log = self.folder / "web.log"
        with process(command, port=port, cores=cores, log=log, environment=self.environment, folder=ROOT) as web:
            yield port, web

    def ask(
        self, port: int, model: str, count: int, *, mini_program: bool = False, tenants: int | None = None
    ) -> Target:
        """Return so many questions, of as many customers while there are, of the first `tenants` tenants in turn."""
        chosen = self.customers[:tenants]
        turns = [chosen[at % len(chosen)][at // len(chosen) % len(chosen[0])] for at in range(count)]
        return Target(port, [_question(customer, model, is_mini_program=mini_program) for customer in turns])


def _question(customer: Customer, model: str, *, is_mini_program: bool) -> bytes:
    body = {"message": "How is the weather up there?", "model": model, "is_wxapp": int(is_mini_program)}
    return post("/api/chat/stream", body, host=customer.host, token=customer.token)


def post(
    path: str, body: object, *, host: str = "127.0.0.1", token: str = "", headers: Mapping[str, str] | None = None
) -> bytes:
    """Return a whole HTTP request that asks for the connection's end after its answer."""
    data = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
        "Connection: close",
        *([f"Authorization: Bearer {token}"] if token else []),
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


@contextmanager
def running_product(models: Sequence[str], *, upstream_port: int, tenants: int, customers: int) -> Iterator[Product]:
    """Start the servers, migrate, open the tenants, each with these models and so many customers, and the worker."""
    with tempfile.TemporaryDirectory(prefix="banyan-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o711)  # the database's user must get to its data
        secrets = folder / "secrets"
        secrets.mkdir(mode=0o700)
        (folder / "static").mkdir()
        # Whatever is started from here on, and is not measured, shares the load's core.
        os.sched_setaffinity(0, LOAD_CORE)
        urls = stack.enter_context(servers(folder, settings=DURABLE))
        environment = {
            **urls,
            **key_files(secrets),
            "BANYAN_VAR": str(folder),
            "DJANGO_SETTINGS_MODULE": "saas.settings",
        }
        environment |= {"MAX_ANSWERS": "5000", "LOG_LEVEL": "WARNING"}
        seed = {"models": list(models), "upstream_port": upstream_port, "tenants": tenants, "customers": customers}
        done = subprocess.run(
            [sys.executable, "-m", "bench.seed", json.dumps(seed)],
            cwd=ROOT,
            env={**os.environ, **environment},
            check=True,
            stdout=subprocess.PIPE,
        )
        people = [[Customer(**customer) for customer in tenant] for tenant in json.loads(done.stdout)]
        worker = [sys.executable, "-m", "celery", "-A", "saas", "worker", "--concurrency=1", "--without-gossip"]
        log = folder / "worker.log"
        stack.enter_context(process(worker, cores=LOAD_CORE, log=log, environment=environment, folder=ROOT))
        yield Product(folder=folder, environment=environment, customers=people, upstream_port=upstream_port)
