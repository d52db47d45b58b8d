"""Where things lie on disk, and as whom the database server runs.

PostgreSQL refuses to run as root. As root we run its programs as the user `nobody`, who must be able to enter the
folder of its data and of its programs. A clone under /root (mode 700) is closed to it: then both go elsewhere.
"""

import errno
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from saas.local.problem import StartError

NOBODY: Final = 65534
# Data, programs' copies and logs of a first start take about 250 MB.
DISK_NEEDED: Final = 500_000_000
# /var/lib is kept by every clean-up job; /var/tmp, which some empty after a month, is the second choice.
OUTSIDE: Final = (Path("/var/lib"), Path("/var/tmp"))  # noqa: S108  the owner is checked below


@dataclass(frozen=True)
class Account:
    """The user that a server runs as; `uid` None is the one who started us."""

    uid: int | None

    def popen_options(self) -> dict[str, Any]:
        """Return the arguments that make subprocess run as this user, with no other rights."""
        return {} if self.uid is None else {"user": self.uid, "group": self.uid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give a file or folder to this user."""
        if self.uid is not None:
            os.chown(path, self.uid, self.uid)

    def can_enter(self, folder: Path) -> bool:
        """Tell whether this user gets into the folder; asked of the system, which knows every kind of right."""
        if self.uid is None:
            return os.access(folder, os.X_OK)
        command = ["/bin/sh", "-c", 'cd "$0"', str(folder)]
        done = subprocess.run(command, cwd="/", stderr=subprocess.DEVNULL, check=False, **self.popen_options())
        return done.returncode == 0


def database_account() -> Account:
    """Return who runs PostgreSQL: `nobody` where we are root, else ourselves."""
    return Account(uid=NOBODY if os.geteuid() == 0 else None)


@dataclass(frozen=True)
class Folders:
    """The data folder and what lies in it; `servers` is elsewhere when the database's user cannot enter `var`."""

    var: Path
    servers: Path

    @property
    def logs(self) -> Path:
        """One log file for each process."""
        return self.var / "log"

    @property
    def run(self) -> Path:
        """What is true only while the supervisor runs: its lock, its children."""
        return self.var / "run"

    @property
    def secrets(self) -> Path:
        """Keys and passwords made at the first start."""
        return self.var / "secrets"


def require_disk(folder: Path, *, needed: int = DISK_NEEDED) -> None:
    """Refuse to start where fewer than `needed` bytes are free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StartError(
            f"There is no room on the disk of {folder}: {free // 1_000_000} MB are free, "
            f"{needed // 1_000_000} MB are needed."
        )


def _make(folder: Path, mode: int) -> None:
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"The data folder {folder} cannot be made: {error.strerror}.") from error


def open_folders(var: Path, account: Account) -> Folders:
    """Make the data folder and its parts, and choose where the database's data goes."""
    _make(var, 0o711)
    if not os.access(var, os.R_OK | os.W_OK | os.X_OK):
        raise StartError(f"The data folder {var} cannot be written by this user; set BANYAN_VAR to another folder.")
    require_disk(var)
    folders = Folders(var=var, servers=var if account.can_enter(var) else _outside(var))
    for folder in (folders.logs, folders.run, folders.secrets):
        _make(folder, 0o700)
    return folders


def _outside(var: Path) -> Path:
    """Return a folder of ours that every user may enter, always the same for the same `var`."""
    name = f"banyan-{hashlib.sha256(str(var).encode()).hexdigest()[:12]}"
    for base in OUTSIDE:
        folder = base / name
        try:
            folder.mkdir(mode=0o711, exist_ok=True)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS, errno.ENOENT, errno.EPERM):
                raise
            continue
        if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
            raise StartError(f"The folder {folder} belongs to someone else; set BANYAN_VAR to another folder.")
        return folder
    raise StartError(f"The database's user cannot enter {var}; set BANYAN_VAR to a folder that every user may enter.")
