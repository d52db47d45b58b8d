"""What `manage.py up` needs Django for, in a process of its own: `python -m saas.local.prepare RESULT SECRETS`.

Lines that begin with "* " are progress for the person, one with "! " is why it ended; the rest is for the log.
RESULT gets the content of the final screen as JSON.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "saas.settings")

import django
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command

from saas.local.problem import StartError
from saas.local.translations import compile_catalogues


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")


@contextmanager
def _step(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    _tell(f"* {what}: done in {time.monotonic() - began:.1f} s")


def prepare(result: Path, secrets: Path) -> None:
    """Check, compile, migrate, collect, open the demo data."""
    with _step("settings checked, messages compiled"):
        compile_catalogues()
        django.setup()
        call_command("check", deploy=True, fail_level="ERROR", stdout=sys.stdout, stderr=sys.stdout)
    with _step("database migrated"):
        call_command("migrate", interactive=False, verbosity=1)
    if not Path(settings.STATIC_ROOT).is_dir():
        with _step("static files collected"):
            call_command("collectstatic", interactive=False, verbosity=0)
    from saas.local.demo import open_demo  # noqa: PLC0415  models exist only after django.setup()

    with _step("demo data"):
        screen = open_demo(secrets=secrets)
    result.touch(mode=0o600)
    result.write_text(json.dumps(asdict(screen)))


def main(work: Callable[[Path, Path], None] = prepare) -> None:
    """Run, and put a foreseeable failure into one sentence."""
    try:
        work(Path(sys.argv[1]), Path(sys.argv[2]))
    except (CommandError, ImproperlyConfigured, StartError) as error:
        problems = [line.strip() for line in str(error).splitlines() if line.strip()]
        errors = [line for line in problems if "(saas.E" in line or "(security.E" in line]
        _tell(f"! {' '.join(errors or problems)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
