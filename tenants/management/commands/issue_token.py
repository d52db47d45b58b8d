"""`manage.py issue_token --tenant SLUG --user NAME`: print a token of an end user, and nothing else."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tenants import scope
from tenants.login import issue_token
from tenants.models import EndUser, Tenant


class Command(BaseCommand):
    """Issue a token for scripts and for trying things out."""

    help = "Print a new access token of an end user, and nothing else."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--tenant", required=True, metavar="SLUG")
        parser.add_argument("--user", required=True, metavar="NAME", help="the user name")
        parser.add_argument(
            "--days", type=int, default=None, help="how long it is good; settings.TOKEN_DAYS by default"
        )

    def handle(self, *args: Any, tenant: str, user: str, days: int | None, **options: Any) -> str:
        """Return the token, which Django prints to standard output."""
        if days is not None and days < 1:
            raise CommandError("--days must be 1 or more")
        owner = Tenant.objects.filter(slug=tenant).first()
        if owner is None:
            raise CommandError(f"there is no tenant “{tenant}”")
        with scope.tenant(owner.pk):
            person = EndUser.objects.filter(username=user).first()
            if person is None:
                raise CommandError(f"tenant “{tenant}” has no user “{user}”")
            return issue_token(user=person, label="issue_token", days=days)
