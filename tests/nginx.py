"""The real nginx with the shipped configuration, for tests that look at what passes through it.

`start_nginx(upstream_port)` runs it before a server on the loopback. nginx comes from the machine, or else from the
distribution's packages, unpacked into a folder under `BANYAN_VAR`: no root is needed and nothing is installed.
"""

import fcntl
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from django.conf import settings

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "deploy" / "nginx.conf.template"
# An address kept for documentation: no connection comes from there.
NOBODY = "192.0.2.1/32"
START_SECONDS = 15

# Where the program is, by the age and make of the distribution; and the packages of the libraries that it may miss.
_PACKAGES = ("nginx", "nginx-light", "nginx-core")
_LIBRARY_PACKAGES = {
    "libpcre2-8.so.0": ("libpcre2-8-0",),
    "libpcre.so.3": ("libpcre3",),
    "libssl.so.3": ("libssl3t64", "libssl3"),
    "libcrypto.so.3": ("libssl3t64", "libssl3"),
    "libssl.so.1.1": ("libssl1.1",),
    "libcrypto.so.1.1": ("libssl1.1",),
    "libcrypt.so.1": ("libcrypt1",),
    "libz.so.1": ("zlib1g",),
}


class NginxMissing(Exception):  # noqa: N818  a state of the machine, named as such
    """No nginx on this machine, and none to be had from its package source."""


@dataclass(frozen=True)
class Binary:
    """An nginx that runs: the program, and the environment that it finds its libraries by."""

    path: Path
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Nginx:
    """A running nginx: the port it listens on, and the files it writes to."""

    port: int
    folder: Path

    def access_log(self) -> str:
        """Return what went to standard output: the access log."""
        return (self.folder / "stdout").read_text()

    def error_log(self) -> str:
        """Return what went to standard error."""
        return (self.folder / "stderr").read_text()


def find_nginx(cache: Path | None = None) -> Binary:
    """Return the machine's nginx, or one unpacked into `cache`; raises NginxMissing."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found:
        return Binary(Path(found), os.environ)
    folder = cache or settings.VAR_DIR / "cache" / "nginx"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # several test processes, one download
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _unpacked(folder)


def _unpacked(folder: Path) -> Binary:
    tree = folder / "tree"
    program = tree / "usr" / "sbin" / "nginx"
    if not program.exists() and not any(_unpack(name, folder) and program.exists() for name in _PACKAGES):
        raise NginxMissing("no nginx on the PATH, and apt-get could not download one")
    for library in _missing_libraries(Binary(program, _library_environment(tree))):
        if not any(_unpack(name, folder) for name in _LIBRARY_PACKAGES.get(library, ())):
            raise NginxMissing(f"the downloaded nginx misses {library}")
    return Binary(program, _library_environment(tree))


def _library_environment(tree: Path) -> dict[str, str]:
    folders = [str(path) for place in ("usr/lib", "lib") for path in sorted((tree / place).glob("*-linux-gnu*"))]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(folders)}


def _missing_libraries(binary: Binary) -> list[str]:
    listing = subprocess.run(
        ["ldd", str(binary.path)], env=dict(binary.environment), capture_output=True, text=True, check=False
    )
    return re.findall(r"^\s*(\S+) => not found", listing.stdout, re.MULTILINE)


def _unpack(package: str, folder: Path) -> bool:
    """Download a Debian package and unpack it into `folder`/tree; False if that is not possible."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        return False
    with tempfile.TemporaryDirectory(dir=folder) as downloads:
        if not _download(package, Path(downloads), folder):
            return False
        for archive in Path(downloads).glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(archive), str(folder / "tree")], check=True, capture_output=True)
        return True


def _download(package: str, downloads: Path, folder: Path) -> bool:
    """Try with the machine's own package lists, then with fresh ones in `folder`, which need no root."""

    def apt(*arguments: str) -> bool:
        run = subprocess.run(
            ["apt-get", "-o", "APT::Sandbox::User=", *arguments],
            cwd=downloads,
            capture_output=True,
            timeout=300,
            check=False,
        )
        return run.returncode == 0

    lists, cache = folder / "lists", folder / "apt-cache"
    own = ("-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={cache}", "-o", "Debug::NoLocking=true")
    if apt("download", package):
        return True
    if not lists.exists():
        for part in (lists, cache / "archives"):
            (part / "partial").mkdir(parents=True, exist_ok=True)
        if not apt(*own, "update"):
            return False
    return apt(*own, "download", package)


def template_variables() -> dict[str, str]:
    """Return what docker-compose.yml gives the template: name -> value as written there."""
    environment = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["nginx"]["environment"]
    chosen = re.compile(environment["NGINX_ENVSUBST_FILTER"])
    return {name: value for name, value in environment.items() if chosen.search(name)}


def render(values: Mapping[str, str]) -> str:
    """Return the configuration as envsubst would write it: each `${NAME}` or `$NAME` of `values` replaced, no other."""
    names = "|".join(map(re.escape, values))
    pattern = re.compile(rf"\$(?:\{{({names})\}}|({names})\b)")
    return pattern.sub(lambda found: values[found[1] or found[2]], TEMPLATE.read_text())


def nginx_command(binary: Binary, folder: Path) -> list[str]:
    """Return the command line of docker-compose.yml, with another program and folder."""
    command = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["nginx"]["command"]
    replaced = {"nginx": str(binary.path), "/tmp": str(folder)}  # noqa: S108  the container's own /tmp
    return [replaced.get(argument, argument) for argument in command]


@contextmanager
def run_nginx(upstream_port: int, *, trusted_proxy: str = NOBODY) -> Iterator[Nginx]:
    """Run nginx before 127.0.0.1:`upstream_port`, until the block ends; raises NginxMissing."""
    binary = find_nginx()
    # Not pytest's tmp_path: started by root, nginx's workers are another user, who cannot enter that.
    with tempfile.TemporaryDirectory(prefix="banyan-nginx-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
            nginx = Nginx(listener.getsockname()[1], folder)
            configuration = render(
                {
                    "BANYAN_LISTEN": f"127.0.0.1:{nginx.port}",
                    "BANYAN_UPSTREAM": f"127.0.0.1:{upstream_port}",
                    "BANYAN_TRUSTED_PROXY": trusted_proxy,
                }
            )
            (folder / "nginx.conf").write_text(configuration)
            process = _start(binary, folder, listener)
        try:
            _wait_until_it_runs(process, nginx)
            yield nginx
        finally:
            process.terminate()
            process.wait(timeout=START_SECONDS)


@contextmanager
def start_nginx(upstream_port: int) -> Iterator[int]:
    """Run nginx before 127.0.0.1:`upstream_port`; yields nginx's own port. Raises NginxMissing."""
    with run_nginx(upstream_port) as nginx:
        yield nginx.port


def _start(binary: Binary, folder: Path, listener: socket.socket) -> subprocess.Popen[bytes]:
    # The socket is handed over open, as nginx does itself when it is upgraded: no other test can take the port between.
    environment = {**binary.environment, "NGINX": f"{listener.fileno()};"}
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        return subprocess.Popen(
            nginx_command(binary, folder),
            env=environment,
            stdout=stdout,
            stderr=stderr,
            pass_fds=[listener.fileno()],
        )


def _wait_until_it_runs(process: subprocess.Popen[bytes], nginx: Nginx) -> None:
    """Wait for the pid file, which nginx writes when it has read its configuration; connections queue meanwhile."""
    deadline = time.monotonic() + START_SECONDS
    while not (nginx.folder / "nginx.pid").exists():
        if process.poll() is not None:
            raise RuntimeError(f"nginx ended with {process.returncode}: {nginx.error_log()}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"nginx does not run after {START_SECONDS} s: {nginx.error_log()}")
        time.sleep(0.02)
