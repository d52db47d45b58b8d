"""What the embedded servers tell the other processes: `$BANYAN_VAR/local.env`, and the keys it points to."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.fernet import Fernet

from saas.local.problem import StartError

HEAD = "# Written by `manage.py up` at every start; own values belong into the environment or into .env.\n"


class LocalEnv:
    """The file that settings.py reads last, so that every `manage.py` command finds the embedded servers.

    Settings put the last run's values into this process's environment. They are taken out again here: what is left
    is what the person set, and nothing outdated reaches the children.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        for name, value in self._read().items():
            if os.environ.get(name) == value:
                del os.environ[name]

    def own(self, name: str) -> bool:
        """Tell whether the person set the variable, or named a file that holds it."""
        return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))

    def write(self, values: Mapping[str, str]) -> None:
        """Replace the file."""
        for name, value in values.items():
            if "\n" in value or "'" in value:
                raise StartError(f"{name} cannot be {value!r}: a path or URL with a quote or a line break.")
        fresh = self.path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        fresh.write_text(HEAD + "".join(f"{name}='{value}'\n" for name, value in values.items()))
        fresh.replace(self.path)

    def _read(self) -> dict[str, str]:
        try:
            lines = self.path.read_text().splitlines()
        except FileNotFoundError:
            return {}
        pairs = (line.split("=", maxsplit=1) for line in lines if "=" in line and not line.startswith("#"))
        return {name: value.strip("'") for name, value in pairs}


def kept_secret(folder: Path, name: str, value: str) -> Path:
    """Return the file of a secret, made with `value` if there is none; it is never overwritten."""
    path = folder / name
    if not path.exists():
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        fresh.write_text(value)
        fresh.replace(path)
    return path


def password(folder: Path, name: str) -> str:
    """Return a password that was made at the first start."""
    return kept_secret(folder, name, secrets.token_urlsafe(24)).read_text()


def key_files(folder: Path) -> dict[str, str]:
    """Return the variables that name the files of Django's secret key and of the key for stored secrets."""
    return {
        "SECRET_KEY_FILE": str(kept_secret(folder, "secret_key", secrets.token_urlsafe(64))),
        "ENCRYPTION_KEYS_FILE": str(kept_secret(folder, "encryption_keys", Fernet.generate_key().decode())),
    }
