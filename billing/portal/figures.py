"""How tenants do, of those that the reader may see: call it inside `scope.several(...)` of them.

What a tenant's users were charged is the tenant's own business; a reseller reads what the tenant pays for it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db.models import Count, Exists, F, OuterRef, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from billing.models import DailyUsage, UsageRecord
from tenants.models import EndUser

RANGES = (7, 30, 90)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A tenant's figures of some days, or of several tenants together; `wholesale` and `share` in micro-yuan.

    `users` is how many there are, of whom `active` had an answer in these days and `new` came in them.
    """

    users: int = 0
    new: int = 0
    active: int = 0
    answers: int = 0
    tokens: int = 0
    wholesale: int = 0
    share: int = 0

    def plus(self, other: "Figures") -> "Figures":
        """Return both together."""
        return Figures(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def days_of(asked: str | None) -> int:
    """Return over how many days figures are wanted: one of `RANGES`."""
    return int(asked) if asked in {str(days) for days in RANGES} else 30


def began(days: int) -> date:
    """Return the first of so many days, the last being today in the platform's time zone."""
    return today() - timedelta(days=days - 1)


def today() -> date:
    """Return the platform's day."""
    return timezone.now().astimezone(ZoneInfo(settings.TIME_ZONE)).date()


def by_tenant(*, days: int, shares: dict[int, int]) -> dict[int, Figures]:
    """Return the figures of each tenant in scope; `shares` says what each earned the reader."""
    first = began(days)
    used = UsageRecord.objects.filter(tenant=OuterRef("tenant"), user=OuterRef("pk"), day__gte=first)
    found: dict[int, dict[str, int]] = {tenant: {"share": share} for tenant, share in shares.items()}
    people = EndUser.objects.order_by()
    came = people.filter(created_at__gte=timezone.now() - timedelta(days=days))
    for name, rows in (("users", people), ("new", came), ("active", people.filter(Exists(used)))):
        for tenant, count in rows.values_list("tenant").annotate(count=Count("pk")):
            found.setdefault(tenant, {})[name] = count
    for tenant, sums in _used("tenant", first):
        found.setdefault(tenant, {}).update(sums)
    return {tenant: Figures(**figures) for tenant, figures in found.items()}


def by_day(*, days: int, shares: dict[date, int]) -> list[tuple[date, Figures]]:
    """Return the figures of each day of the tenants in scope together; nobody is counted as active."""
    first = began(days)
    found: dict[date, dict[str, int]] = {day: {"share": share} for day, share in shares.items()}
    for day, sums in _used("day", first):
        found.setdefault(day, {}).update(sums)
    came = EndUser.objects.filter(created_at__gte=timezone.now() - timedelta(days=days)).order_by()
    joined = came.values_list(TruncDate("created_at", tzinfo=ZoneInfo(settings.TIME_ZONE))).annotate(count=Count("pk"))
    for day, count in joined:
        found.setdefault(day, {})["new"] = count
    span = [first + timedelta(days=number) for number in range(days)]
    return [(day, Figures(**found.get(day, {}))) for day in span]


def _used(by: str, first: date) -> list[tuple[Any, dict[str, int]]]:
    """Return what was used since a day, added up."""
    rows = DailyUsage.objects.filter(day__gte=first).order_by().values_list(by)
    sums = rows.annotate(
        answers_=Sum("answers"), tokens_=Sum(F("prompt_tokens") + F("completion_tokens")), paid=Sum("wholesale_charge")
    )
    return [(key, {"answers": answers, "tokens": tokens, "wholesale": paid}) for key, answers, tokens, paid in sums]


def together(figures: Iterable[Figures]) -> Figures:
    """Return the sum of figures."""
    whole = Figures()
    for one in figures:
        whole = whole.plus(one)
    return whole
