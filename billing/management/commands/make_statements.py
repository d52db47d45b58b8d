"""`manage.py make_statements`: makes the monthly statements that there are not yet."""

from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from billing import statements


class Command(BaseCommand):
    """Makes every tenant's and reseller's statement of a month; what was made before stays as it is."""

    help = "makes the monthly statements of tenants and resellers that there are not yet"

    def add_arguments(self, parser: CommandParser) -> None:
        """Take a month."""
        parser.add_argument("--month", help="such as 2026-10; the month before this one where none is given")

    def handle(self, *_args: Any, month: str | None, **_options: Any) -> None:
        """Make them, and say how many there are now."""
        first = statements.month_before(timezone.localdate())
        if month is not None:
            try:
                first = datetime.strptime(month, "%Y-%m").date()  # noqa: DTZ007  # a month, of every owner's own zone
            except ValueError:
                raise CommandError(f"a month such as 2026-10 is wanted, not {month!r}", returncode=2) from None
        try:
            made = statements.make_statements(month=first)
        except ValueError as fault:
            raise CommandError(str(fault), returncode=2) from None
        self.stdout.write(f"{first:%Y-%m}: {made} statements")
