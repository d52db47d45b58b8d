"""`manage.py make_codes --tenant SLUG --yuan 10 --count 100 --name TEXT`: make redeem codes and print them."""

import getpass
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from billing.models import RedeemBatch
from billing.redeem import create_batch
from billing.yuan import parse_yuan
from tenants import scope
from tenants.models import Tenant


class Command(BaseCommand):
    """Prints the codes and nothing else, one a line, so that they can be sent into a file."""

    help = "Make a batch of redeem codes and print them."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare whose, how much and how many."""
        parser.add_argument("--tenant", required=True, metavar="SLUG")
        parser.add_argument("--yuan", required=True, metavar="AMOUNT", help="on each code, such as 10 or 0.05")
        parser.add_argument("--count", required=True, type=int)
        parser.add_argument("--name", required=True, metavar="TEXT", help="what the batch is called in the admin")
        parser.add_argument("--gift", action="store_true", help="as gift balance, which is spent first")
        parser.add_argument("--expires-days", type=int, metavar="N", help="good for N days; else for ever")
        parser.add_argument("--per-user-limit", type=int, metavar="N", help="codes of the batch that one user may have")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Make the batch, then print its codes."""
        tenant = Tenant.objects.filter(slug=options["tenant"]).first()
        if tenant is None:
            raise CommandError(f"There is no tenant {options['tenant']!r}.")
        batch = self._make(tenant, options)
        with scope.tenant(tenant.pk):
            for code in batch.codes.order_by("pk"):
                self.stdout.write(code.written)

    def _make(self, tenant: Tenant, options: dict[str, Any]) -> RedeemBatch:
        days = options["expires_days"]
        if days is not None and days < 1:
            raise CommandError("--expires-days is 1 at least.")
        try:
            return create_batch(
                tenant_id=tenant.pk,
                name=options["name"],
                amount=parse_yuan(options["yuan"]),
                kind="gift" if options["gift"] else "cash",
                count=options["count"],
                expires_at=None if days is None else timezone.now() + timedelta(days=days),
                per_user_limit=options["per_user_limit"],
                created_by=f"command line, {getpass.getuser()}",
            )
        except ValueError as fault:
            raise CommandError(str(fault)) from fault
