"""`manage.py check_tenant --tenant SLUG`: look at a tenant's checklist now."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from lifecycle import checks
from lifecycle.models import Check
from tenants.models import Tenant


class Command(BaseCommand):
    """Look at the checklist."""

    help = "Look at every step of a tenant's checklist that is not green, or at one; exit code 1 while one is red."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Ask whose, and which step."""
        parser.add_argument("--tenant", required=True, metavar="SLUG")
        parser.add_argument("--step", default="", choices=["", *Check.Kind.values])

    def handle(self, *args: Any, tenant: str, step: str, **options: Any) -> None:
        """Look, and say how each step stands."""
        found = Tenant.objects.filter(slug=tenant).first()
        if found is None:
            raise CommandError(f"there is no tenant “{tenant}”")
        steps = checks.run(tenant=found, actor="check_tenant", kind=step)
        for one in steps:
            self.stdout.write(f"{one.state:8} {one.name}: {one.text}")
        if not checks.is_done(steps):
            raise CommandError("not everything is green yet")
