"""The whole of `manage.py up`, in the order in which it happens.

This process talks to no database and runs no business code: it starts servers, has `saas.local.prepare` do what needs
Django, starts the application's processes, and then watches.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import psycopg
import redis

from saas.local import folders, model, postgres, valkey
from saas.local.environment import LocalEnv, key_files, password
from saas.local.ports import HOST, PortBook, web_port
from saas.local.problem import StartError
from saas.local.processes import Record, Service, start, stop
from saas.local.screen import Screen, final_screen
from saas.local.supervisor import Say, StopFlag, Stopped, Supervisor, lock

ROOT: Final = Path(__file__).resolve().parent.parent.parent
DEFAULT_PORT: Final = "8000"
# Answers that are being read when Ctrl-C comes may still end, for so many seconds.
DRAIN_SECONDS: Final = 15
MODEL_VARIABLES: Final = ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL")


@dataclass
class Launch:
    """One run: the data folder, what the person set, and how to speak to them."""

    var: Path
    say: Say

    def run(self) -> None:
        """Start everything, show the screen, watch until a signal. Raises StartError in one sentence."""
        flag = StopFlag()
        flag.listen()
        self._account = folders.database_account()
        self._folders = folders.open_folders(self.var, self._account)
        with lock(self._folders.run / "lock"):
            record = Record(self._folders.run / "children.json")
            for name in record.end_leftovers():
                self.say(f"ended {name}, left running by a supervisor that was killed")
            self._supervisor = Supervisor(record=record, flag=flag, say=self.say)
            try:
                self._start(flag)
                self._supervisor.watch()
            except Stopped:
                self.say("stopping")
            finally:
                self._supervisor.end()
            self.say("stopped; the data stays")

    def _start(self, flag: StopFlag) -> None:
        began = time.monotonic()
        port = web_port(os.environ.get("PORT") or DEFAULT_PORT)
        if self._folders.servers != self.var:
            self.say(f"the database's user may not enter {self.var}: its data lies in {self._folders.servers}")
        env = self._start_servers(port)
        screen = self._prepare(env, flag)
        self._start_application(env, port)
        self.say(f"ready after {time.monotonic() - began:.1f} s")
        for line in final_screen(screen, port=port, logs=self._folders.logs):
            self.say(line)

    # --- the servers

    def _start_servers(self, port: int) -> dict[str, str]:
        """Start what the person has not replaced; return the environment of every other process."""
        local = LocalEnv(self.var / "local.env")
        self._ports = PortBook(self.var / "ports.json")
        values = {
            name: value
            for name, value in key_files(self._folders.secrets).items()
            if not local.own(name.removesuffix("_FILE"))
        }
        # What the person set is looked at before anything is started for the rest.
        own = {name for name, check in _REPLACEABLE.items() if local.own(name) and check(_value(name))}
        if "OPENAI_BASE_URL" in own and not local.own("OPENAI_MODEL"):
            raise StartError("OPENAI_BASE_URL is set, but not OPENAI_MODEL, the model's name there.")
        if "DATABASE_URL" not in own:
            values["DATABASE_URL"] = self._start_postgres()
        if "REDIS_URL" not in own:
            values["REDIS_URL"] = self._start_valkey()
        if "OPENAI_BASE_URL" not in own:
            values.update(self._start_model())
        if not local.own("TENANT_URL"):
            values["TENANT_URL"] = f"http://{{host}}:{port}"
        local.write(values)
        return {
            "DRAIN_SECONDS": os.environ.get("DRAIN_SECONDS") or str(DRAIN_SECONDS),
            "BANYAN_VAR": str(self.var),
            "DJANGO_SETTINGS_MODULE": "saas.settings",
            **values,
        }

    def _start_postgres(self) -> str:
        programs = postgres.programs_for(self._account, postgres.find_programs(), self._folders.servers)
        server = postgres.Postgres(
            programs=programs,
            folder=self._folders.servers / "postgres",
            log=self._folders.logs / "postgres.log",
            port=self._ports.port("postgres"),
            password=password(self._folders.secrets, "postgres_password"),
            account=self._account,
        )
        with self._step(f"PostgreSQL {server.version}"):
            server.create()
            server.clear_stale_lock()
            service = server.service()
            self._supervisor.run(service)
            self._supervisor.wait_for(service, server.is_ready, seconds=60)
            server.create_database()
        return server.url

    def _start_valkey(self) -> str:
        server = valkey.Valkey(
            program=valkey.find_program(),
            folder=self._folders.var / "valkey",
            log=self._folders.logs / "valkey.log",
            port=self._ports.port("valkey"),
            password=password(self._folders.secrets, "valkey_password"),
        )
        with self._step("Valkey"):
            service = server.service()
            self._supervisor.run(service)
            self._supervisor.wait_for(service, server.is_ready, seconds=20)
        return server.url

    def _start_model(self) -> dict[str, str]:
        server = model.Model(
            log=self._folders.logs / "model.log",
            port=self._ports.port("model"),
            key=password(self._folders.secrets, "model_key"),
        )
        with self._step("SmolLM2-135M, the built-in model"):
            service = server.service()
            self._supervisor.run(service)
            self._supervisor.wait_for(service, server.is_ready, seconds=120)
        return dict(zip(MODEL_VARIABLES, (server.base_url, server.key, model.NAME), strict=True))

    # --- the application

    def _prepare(self, env: Mapping[str, str], flag: StopFlag) -> Screen:
        """Have Django check its settings, migrate and open the demo data; its progress is passed on."""
        result = self._folders.run / "prepared.json"
        result.unlink(missing_ok=True)
        service = Service(
            name="preparation",
            command=[sys.executable, "-u", "-m", "saas.local.prepare", str(result), str(self._folders.secrets)],
            log=self._folders.run / "prepare.log",
            env=env,
            cwd=ROOT,
        )
        service.log.unlink(missing_ok=True)
        process = start(service)
        try:
            self._pass_on(process, service.log, flag)
        finally:
            stop(process, service)
        if process.returncode or not result.exists():
            words = service.log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise StartError(f"The application could not be prepared: {words[-1].removeprefix('! ')}")
        screen: dict[str, Any] = json.loads(result.read_text())
        result.unlink()  # it holds tokens
        return Screen(**screen)

    def _pass_on(self, process: subprocess.Popen[bytes], log: Path, flag: StopFlag) -> None:
        """Say each progress line of the preparation as it comes; everything else stays in its log."""
        with log.open(errors="replace") as lines:
            while True:
                ended = process.poll() is not None
                for line in lines:
                    if line.startswith("* "):
                        self.say(line[2:].rstrip())
                if ended:
                    return
                flag.pause(0.05)

    def _start_application(self, env: Mapping[str, str], port: int) -> None:
        def python(name: str, *arguments: str, patience: float = 10) -> Service:
            log = self._folders.logs / f"{name}.log"
            command = [sys.executable, "-m", *arguments]
            return Service(name=name, command=command, log=log, env=env, cwd=ROOT, patience=patience)

        beat = python("beat", *_BEAT, f"--schedule={self._folders.run / 'beat'}", patience=5)
        worker = python("worker", *_WORKER)
        web = python("web", *_WEB, f"--port={port}", patience=2 * DRAIN_SECONDS + 5)
        with self._step("web, worker and beat"):
            for service in (beat, worker, web):  # ended in the reverse order: nobody asks while the rest goes
                self._supervisor.run(service)
            self._supervisor.wait_for(web, lambda: _is_healthy(port), seconds=90)

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.say(f"{what}: ready in {time.monotonic() - began:.1f} s")


_WEB: Final = (
    "uvicorn",
    "saas.asgi:application",
    f"--host={HOST}",
    "--loop=uvloop",
    "--http=httptools",
    "--no-access-log",
    "--no-server-header",
    "--no-proxy-headers",
    "--ws-max-size=1048576",
    f"--timeout-graceful-shutdown={DRAIN_SECONDS}",
)
# Threads, not processes: no pool of children to be left behind, and the work is the database's.
_WORKER: Final = (
    "celery",
    "-A",
    "saas",
    "worker",
    "--pool=threads",
    "--concurrency=2",
    "--without-gossip",
    "--loglevel=INFO",
)
_BEAT: Final = ("celery", "-A", "saas", "beat", "--pidfile=")


def _value(name: str) -> str:
    """Return a variable's value, from its file where one is named."""
    file = os.environ.get(f"{name}_FILE")
    if not file:
        return os.environ[name]
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise StartError(f"{name}_FILE names {file}, which cannot be read: {error.strerror}.") from error


def require_url(url: str, name: str, *, schemes: tuple[str, ...]) -> str:
    """Return `host:port` of a URL of one of the schemes; StartError if it is none."""
    expected = f"{name} must be a URL such as {schemes[0]}://host/…"
    try:
        parts = urlsplit(url)
        where = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
    except ValueError as error:
        raise StartError(f"{expected}: {error}.") from error
    if parts.scheme not in schemes or not where:
        raise StartError(f"{expected}.")
    return where


def require_endpoint(url: str) -> str:
    """Refuse an OPENAI_BASE_URL that is none. It is not asked: that could cost money, and it may come up later."""
    return require_url(url, "OPENAI_BASE_URL", schemes=("http", "https"))


def require_database(url: str) -> str:
    """Refuse a DATABASE_URL that nobody answers at; return where it is. The message never holds the password."""
    where = require_url(url, "DATABASE_URL", schemes=("postgres", "postgresql"))
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.Error as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise StartError(f"DATABASE_URL: the database at {where} cannot be used: {said}") from error
    return where


def require_redis(url: str) -> str:
    """Refuse a REDIS_URL that nobody answers at; return where it is."""
    where = require_url(url, "REDIS_URL", schemes=("redis", "rediss"))
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        raise StartError(f"REDIS_URL: the server at {where} cannot be used: {error}") from error
    return where


_REPLACEABLE: Final = {
    "DATABASE_URL": require_database,
    "REDIS_URL": require_redis,
    "OPENAI_BASE_URL": require_endpoint,
}


def _is_healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{port}/healthz", timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
