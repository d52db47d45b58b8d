"""`manage.py onboard_tenant NAME`: open a tenant that can chat at once, and look at its checklist."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.yuan import parse_yuan
from lifecycle import checks, opening
from lifecycle.addresses import address_of
from tenants.errors import ProductError
from tenants.models import Reseller


class Command(BaseCommand):
    """Open a tenant."""

    help = "Open a tenant that can chat at once; print its address and the link for its first staff, once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Ask for the name alone."""
        parser.add_argument("name", help="what its users see")
        parser.add_argument("--slug", default="", help="its subdomain; made of the name where not given")
        parser.add_argument("--host", default="", help="a domain of its own, beside the subdomain")
        parser.add_argument("--reseller", default="", metavar="SLUG", help="whose it is; the operator's else")
        parser.add_argument("--template", default="", metavar="SLUG", help="of models and prices; the default one else")
        parser.add_argument("--markup", type=int, default=None, metavar="PERCENT", help="retail above wholesale")
        parser.add_argument("--wallet", default="0", metavar="YUAN", help="for its wallet; a reseller's is paid by it")
        parser.add_argument("--color", default="#0f766e", help="the brand's colour")
        parser.add_argument("--language", default="zh-hans", choices=["zh-hans", "en"])
        parser.add_argument("--app-id", default="", help="of the WeChat mini-program")
        parser.add_argument("--app-secret", default="", help="of the mini-program")
        parser.add_argument("--email", default="", help="where the invitation is mailed to")
        parser.add_argument("--active", action="store_true", help="no trial")
        parser.add_argument("--key", default="", help="the same key opens once")
        parser.add_argument("--no-check", action="store_true", help="do not look at the checklist")

    def handle(self, *args: Any, **options: Any) -> None:
        """Open, then look."""
        try:
            opened = opening.open_for(
                application=self._application(options),
                reseller=self._reseller(options["reseller"]),
                actor="onboard_tenant",
                key=options["key"],
                is_vouched=True,
            )
        except ProductError as refusal:
            raise CommandError(f"{refusal.type}: {refusal.msg}") from None
        self.stdout.write(f"tenant      {opened.tenant.slug}")
        self.stdout.write(f"address     {address_of(opened.host)}")
        self.stdout.write(f"invitation  {opened.invitation_url or 'shown when it was opened'}")
        if not options["no_check"]:
            for step in checks.run(tenant=opened.tenant, actor="onboard_tenant"):
                self.stdout.write(f"{step.state:8} {step.name}: {step.text}")

    def _application(self, options: dict[str, Any]) -> opening.Application:
        try:
            wallet = parse_yuan(options["wallet"])
        except ValueError:
            raise CommandError("--wallet wants yuan, such as 20 or 12.50") from None
        markup = options["markup"]
        if markup is not None and not 0 <= markup <= opening.MAX_MARKUP_PERCENT:
            raise CommandError(f"--markup wants 0 to {opening.MAX_MARKUP_PERCENT} percent")
        return opening.Application(
            name=options["name"],
            slug=options["slug"],
            host=options["host"],
            template=options["template"],
            markup_ppm=None if markup is None else markup * 10_000,
            wallet=wallet,
            primary_color=options["color"],
            language=options["language"],
            app_id=options["app_id"],
            app_secret=options["app_secret"],
            owner_email=options["email"],
            trial=not options["active"],
        )

    def _reseller(self, slug: str) -> Reseller | None:
        if not slug:
            return None
        found = Reseller.objects.filter(slug=slug).first()
        if found is None:
            raise CommandError(f"there is no reseller “{slug}”")
        return found
