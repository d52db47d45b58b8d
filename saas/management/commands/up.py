"""`manage.py up`: the whole product on one machine, in the foreground, until Ctrl-C."""

import os
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    """A thin door to `saas.local.launch`."""

    help = "Start PostgreSQL, Valkey, the built-in model, web, worker and beat, and open the demo data."
    # The settings are checked in saas.local.prepare, once the servers and keys are there.
    requires_system_checks: list[str] = []  # noqa: RUF012  Django's declaration

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Run until a signal; a foreseeable problem is one sentence on standard error and exit code 1."""
        try:
            from saas.local.launch import Launch  # noqa: PLC0415  needs requirements-local.txt
            from saas.local.problem import StartError  # noqa: PLC0415
        except ModuleNotFoundError as missing:
            raise CommandError(
                f"The package {missing.name} is missing: run `make run`, or pip install -r requirements-local.txt."
            ) from missing
        try:
            Launch(var=settings.VAR_DIR, say=self._say).run()
        except StartError as problem:
            self.stderr.write(str(problem))
            sys.exit(1)
        except OSError as problem:
            # A full disk, a right that is missing: the system's own words name the file.
            self.stderr.write(f"The system refused: {os.strerror(problem.errno or 0)} ({problem.filename}).")
            sys.exit(1)

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
