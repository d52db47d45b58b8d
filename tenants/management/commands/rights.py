"""`manage.py rights`: what each role may do, as the table of docs/roles.md."""

from typing import Any

from django.core.management.base import BaseCommand

from tenants import rights


class Command(BaseCommand):
    """Prints the table; a test holds the one in docs/roles.md against it."""

    help = "Prints what each role may do with what rows, as Markdown."

    def handle(self, **_options: Any) -> None:
        """Print it."""
        self.stdout.write(rights.table())
