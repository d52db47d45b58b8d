"""`manage.py credit --tenant SLUG --user NAME --yuan 20 --reason TEXT`: credit a user by hand, through the ledger."""

import getpass
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from uuid_utils.compat import uuid7

from billing import ledger
from billing.yuan import parse_yuan, show_yuan
from tenants import scope
from tenants.models import EndUser, Tenant


class Command(BaseCommand):
    """Credits once for each `--ref`; without one, each call is a credit of its own."""

    help = "Credit a user's balance through the ledger."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare who, how much and why."""
        parser.add_argument("--tenant", required=True, metavar="SLUG")
        parser.add_argument("--user", required=True, metavar="NAME", help="user name")
        parser.add_argument("--yuan", required=True, metavar="AMOUNT", help="such as 20 or 0.05")
        parser.add_argument("--reason", required=True, metavar="TEXT", help="kept with the transfer, for the auditor")
        parser.add_argument("--gift", action="store_true", help="as gift balance, which is spent first")
        parser.add_argument("--ref", default="", help="the same reference never credits twice")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Credit, then say what the balance is now."""
        tenant = Tenant.objects.filter(slug=options["tenant"]).first()
        if tenant is None:
            raise CommandError(f"There is no tenant {options['tenant']!r}.")
        with scope.tenant(tenant.pk):
            user = EndUser.objects.filter(username=options["user"]).first()
        if user is None:
            raise CommandError(f"Tenant {tenant.slug!r} has no user {options['user']!r}.")
        if not options["reason"].strip():
            raise CommandError("A credit needs a reason.")
        amount = self._credit(tenant, user, options)
        balance = ledger.balances(tenant_id=tenant.pk, user_id=user.pk).available
        self.stdout.write(
            f"{user.username} of {tenant.slug}: ¥{show_yuan(amount)} credited, ¥{show_yuan(balance)} available."
        )

    def _credit(self, tenant: Tenant, user: EndUser, options: dict[str, Any]) -> int:
        try:
            amount = parse_yuan(options["yuan"])
            ledger.credit_user(
                tenant_id=tenant.pk,
                user_id=user.pk,
                amount=amount,
                kind="gift" if options["gift"] else "cash",
                ref=options["ref"] or str(uuid7()),
                reason=options["reason"],
                actor=f"command line, {getpass.getuser()}",
            )
        except (ValueError, ledger.RefConflictError) as fault:
            raise CommandError(str(fault)) from fault
        return amount
