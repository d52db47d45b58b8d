"""`manage.py credit_wallet --tenant SLUG --yuan 1000 --reason TEXT`: top up a wholesale wallet by hand."""

import getpass
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from uuid_utils.compat import uuid7

from billing import ledger, wallet
from billing.yuan import parse_yuan, show_yuan
from tenants.models import Reseller, Tenant


class Command(BaseCommand):
    """Tops up once for each `--ref`; without one, each call is a top-up of its own."""

    help = "Top up the wholesale wallet of a tenant or a reseller through the ledger."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare whose wallet, how much and why."""
        owner = parser.add_mutually_exclusive_group(required=True)
        owner.add_argument("--tenant", metavar="SLUG")
        owner.add_argument("--reseller", metavar="SLUG")
        parser.add_argument("--yuan", required=True, metavar="AMOUNT", help="such as 1000 or 0.05")
        parser.add_argument("--reason", required=True, metavar="TEXT", help="kept with the transfer, for the auditor")
        parser.add_argument("--ref", default="", help="the same reference never tops up twice")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Top up, then say what the wallet has now."""
        kind, model = ("tenant", Tenant) if options.get("tenant") else ("reseller", Reseller)
        slug = options[kind]
        owner = model.objects.filter(slug=slug).values_list("pk", flat=True).first()
        if owner is None:
            raise CommandError(f"There is no {kind} {slug!r}.")
        if not options["reason"].strip():
            raise CommandError("A top-up needs a reason.")
        whose = {f"{kind}_id": owner}
        credit = ledger.credit_tenant_wallet if kind == "tenant" else wallet.credit_reseller_wallet
        try:
            amount = parse_yuan(options["yuan"])
            credit(
                **whose,
                amount=amount,
                ref=options["ref"] or str(uuid7()),
                reason=options["reason"],
                actor=f"command line, {getpass.getuser()}",
            )
        except (ValueError, ledger.RefConflictError) as fault:
            raise CommandError(str(fault)) from fault
        has = wallet.balance_of(**whose)
        self.stdout.write(f"{kind} {slug}: ¥{show_yuan(amount)} topped up, ¥{show_yuan(has)} in the wallet.")
