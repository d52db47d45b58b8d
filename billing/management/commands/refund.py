"""`manage.py refund --tenant SLUG --order NUMBER --yuan 10 --reason TEXT`: refund an order, through its provider."""

import getpass
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing import refund
from billing.models import Order
from billing.yuan import parse_yuan, show_yuan
from tenants import scope
from tenants.errors import ProductError
from tenants.models import Tenant


class Command(BaseCommand):
    """Each call is a refund of its own; of more than was paid there is none."""

    help = "Refund a part or all of a paid order."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare what, how much and why."""
        parser.add_argument("--tenant", required=True, metavar="SLUG")
        parser.add_argument("--order", required=True, metavar="NUMBER", help="order number, as providers know it")
        parser.add_argument("--yuan", required=True, metavar="AMOUNT", help="such as 20 or 0.05")
        parser.add_argument("--reason", required=True, metavar="TEXT", help="kept with the refund, for the auditor")
        parser.add_argument("--manual", action="store_true", help="it was paid back by hand: nobody is asked")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Refund, then say how it stands."""
        tenant = Tenant.objects.filter(slug=options["tenant"]).first()
        if tenant is None:
            raise CommandError(f"There is no tenant {options['tenant']!r}.")
        with scope.tenant(tenant.pk):
            order = Order.objects.filter(out_trade_no=options["order"]).first()
        if order is None:
            raise CommandError(f"Tenant {tenant.slug!r} has no order {options['order']!r}.")
        try:
            made = refund.request_refund(
                tenant_id=tenant.pk,
                order_id=order.pk,
                amount=parse_yuan(options["yuan"]),
                kind="manual" if options["manual"] else "provider",
                reason=options["reason"],
                actor=f"command line, {getpass.getuser()}",
            )
        except ProductError as refusal:
            raise CommandError(str(refusal.msg)) from refusal
        except ValueError as fault:
            raise CommandError(str(fault)) from fault
        why = f" ({made.failure})" if made.failure else ""
        self.stdout.write(f"{order.out_trade_no} of {tenant.slug}: ¥{show_yuan(made.amount)} {made.state}{why}.")
