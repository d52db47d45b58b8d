"""`manage.py audit_ledger`: check now that no money is lost."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import translation

from billing import audit
from billing.audit import Result
from tenants.models import Tenant


class Command(BaseCommand):
    """Exit code 0: nothing breaks an invariant. 1: something does. 2: the question was wrong."""

    help = "Check the ledger's invariants; exit code 1 where one is broken."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare whose books."""
        parser.add_argument(
            "--tenant", metavar="SLUG", help="this tenant's rows alone; default: all, the platform's too"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print what was checked, then which rows break."""
        results = audit.audit(tenant_id=_tenant_id(options["tenant"]))
        with translation.override("en"):
            for line in (*_table(results), *_breaches(results), "", _verdict(results)):
                self.stdout.write(line)
        if any(result.breaches for result in results):
            sys.exit(1)


def _tenant_id(slug: str | None) -> int | None:
    if slug is None:
        return None
    tenant = Tenant.objects.filter(slug=slug).first()
    if tenant is None:
        raise CommandError(f"There is no tenant {slug!r}.", returncode=2)
    return tenant.pk


def _table(results: Sequence[Result]) -> Iterator[str]:
    """Yield a line for each check, in columns."""
    cells = [("", "what is always true", "rows", "breaches")]
    cells += [
        (result.check.invariant, str(result.check.meaning), f"{result.rows:,}", f"{result.breaches:,}")
        for result in results
    ]
    name, meaning, rows, breaches = (max(map(len, column)) for column in zip(*cells, strict=True))
    for line in cells:
        yield f"{line[0]:<{name}}  {line[1]:<{meaning}}  {line[2]:>{rows}}  {line[3]:>{breaches}}"


def _breaches(results: Sequence[Result]) -> Iterator[str]:
    """Yield the rows that break a check, under its name; those beyond the first few as a number."""
    for result in results:
        if not result.breaches:
            continue
        yield ""
        yield f"{result.check.invariant} is broken by:"
        yield from (f"  {breach.tenant or 'platform'}: {breach.row}: {breach.found}" for breach in result.shown)
        if rest := result.breaches - len(result.shown):
            yield f"  … and {rest:,} more"


def _verdict(results: Sequence[Result]) -> str:
    total = sum(result.breaches for result in results)
    return f"{total:,} {'breach' if total == 1 else 'breaches'}." if total else "No breach."
