"""`manage.py fetch_bills`: fetches payment providers' daily bills and compares them with the books."""

from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing import reconcile
from billing.models import MerchantAccount
from billing.payments.provider import PaymentError
from billing.yuan import show_yuan
from tenants import scope
from tenants.models import Tenant


class Command(BaseCommand):
    """Fetches bills: every one of the last week that is missing, or one tenant's of a day, anew."""

    help = "fetches payment providers' daily bills and compares them with the books"

    def add_arguments(self, parser: CommandParser) -> None:
        """Take a tenant and a day, or nothing."""
        parser.add_argument("--tenant", help="slug; with --day")
        parser.add_argument("--day", type=date.fromisoformat, help="such as 2026-11-24, in China's time zone")

    def handle(self, *_args: Any, tenant: str | None, day: date | None, **_options: Any) -> None:
        """Fetch; a provider that does not help ends the command with exit code 1."""
        if (tenant is None) != (day is None):
            raise CommandError("--tenant and --day go together", returncode=2)
        if day is None:
            self.stdout.write(f"bills fetched: {reconcile.reconcile_all()}")
            return
        found = Tenant.objects.filter(slug=tenant).first()
        if found is None:
            raise CommandError(f"there is no tenant {tenant!r}", returncode=2)
        with scope.tenant(found.pk):
            for account in MerchantAccount.objects.order_by("pk"):
                self._fetch(account, day)

    def _fetch(self, account: MerchantAccount, day: date) -> None:
        try:
            bill = reconcile.reconcile(account=account, day=day)
        except PaymentError as fault:
            raise CommandError(f"{account.channel} {account.merchant_id}: {fault}") from fault
        self.stdout.write(
            f"{account.channel} {account.merchant_id} {day}: collected {show_yuan(bill.collected)}, "
            f"paid back {show_yuan(bill.refunded)}, lines of no order here {bill.not_ours}"
        )
