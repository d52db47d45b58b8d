"""`manage.py publish_price`: adds a version to the price list."""

from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import IntegrityError
from django.utils import timezone

from billing import notices, pricing
from billing.models import PriceVersion
from billing.yuan import parse_yuan, show_yuan
from tenants import scope
from tenants.errors import ProductError
from tenants.models import Reseller, Tenant

Level = PriceVersion.Level


def _micro(text: str) -> int:
    try:
        return parse_yuan(text)
    except ValueError as fault:
        raise CommandError(str(fault), returncode=2) from None


def _moment(text: str | None) -> datetime | None:
    """Return a moment to come, in the operator's time zone where the text names none."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as fault:
        raise CommandError(str(fault), returncode=2) from None
    moment = moment if moment.tzinfo else timezone.make_aware(moment)
    if moment <= timezone.now():
        raise CommandError(f"{text} has passed: a price is never backdated", returncode=2)
    return moment


class Command(BaseCommand):
    """Publishes a price, in yuan per million tokens; in force at once, or from a later moment."""

    help = "publishes a price, in yuan per million tokens"

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the level, whose price it is, and the rates."""
        parser.add_argument("level", choices=[str(level) for level in Level])
        parser.add_argument("sku")
        parser.add_argument("--prompt", required=True, help="yuan per million tokens")
        parser.add_argument("--cached", required=True, help="yuan per million tokens")
        parser.add_argument("--completion", required=True, help="yuan per million tokens")
        parser.add_argument("--call", default="0", help="yuan per answer")
        parser.add_argument("--multiplier", default="1", help="of the three rates")
        parser.add_argument("--tenant", help="slug: whose retail price it is")
        parser.add_argument("--reseller", help="slug: whose tenants pay this wholesale price")
        parser.add_argument("--from", dest="since", help="such as 2026-12-01T00:00, in TIME_ZONE; at once by default")
        parser.add_argument("--under-water", action="store_true", help="publish although others come under water")

    def handle(self, *_args: Any, level: str, sku: str, tenant: str | None, reseller: str | None, **more: Any) -> None:
        """Publish, or say what is in the way."""
        owner = Tenant.objects.filter(slug=tenant).first() if tenant else None
        seller = Reseller.objects.filter(slug=reseller).first() if reseller else None
        if (tenant and owner is None) or (reseller and seller is None):
            raise CommandError("there is no such tenant or reseller", returncode=2)
        if (level == Level.RETAIL) != (owner is not None) or (seller and level != Level.WHOLESALE):
            raise CommandError("--tenant is for retail prices and always there; --reseller for wholesale", returncode=2)
        rates = {
            "prompt_rate": _micro(more["prompt"]),
            "cached_rate": _micro(more["cached"]),
            "completion_rate": _micro(more["completion"]),
            "per_call": _micro(more["call"]),
            "multiplier_ppm": _micro(more["multiplier"]),
        }
        owners = {"tenant_id": owner.pk if owner else None, "reseller_id": seller.pk if seller else None}
        with scope.platform("the operator's command"):
            self._publish(
                rates, level=level, sku=sku, since=_moment(more["since"]), accept=more["under_water"], **owners
            )

    def _publish(
        self,
        rates: dict[str, int],
        *,
        level: str,
        sku: str,
        since: datetime | None,
        accept: bool,
        **owners: int | None,
    ) -> None:
        wanted = PriceVersion(level=level, sku=sku, effective_at=since or pricing.now(), **rates, **owners)
        under = pricing.under_water(price=wanted)
        if under and not accept:
            names = ", ".join(f"{level} {slug}".strip() for level, slug in under)
            raise CommandError(f"under water: {names}; --under-water publishes it all the same")
        try:
            made = pricing.publish_price(
                level=level,
                sku=sku,
                effective_at=since,
                actor="command",
                **rates,
                **owners,  # type: ignore[arg-type]  # ids are under their own names
            )
        except ProductError as refusal:
            raise CommandError(str(refusal.msg)) from None
        except IntegrityError as refusal:
            raise CommandError(str(refusal).splitlines()[0]) from None
        notices.under_water(price=made, under=under)
        self.stdout.write(f"{level} {sku}: {show_yuan(made.prompt_rate)} / {show_yuan(made.completion_rate)}")
