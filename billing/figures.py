"""What the dashboard shows of a span of days: from roll-ups and narrow indexes, in as many queries for a year as a day.

Days of usage are each tenant's own. Days of payments and of new users are those of the reader's time zone, which on a
tenant's site is the same. Amounts are micro-yuan. In a tenant's scope, or in the platform's for all tenants together.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from django.db.models import Count, QuerySet, Sum
from django.db.models.functions import TruncDate

from billing.models import DailyUsage, DailyUsers, Hold, Order
from billing.models.hold import FAILED
from tenants.models import EndUser

_SUMS: Final = (
    *("answers", "free_answers", "prompt_tokens", "cached_tokens", "completion_tokens"),
    *("charge", "wholesale_charge", "own_share", "parent_share", "cost"),
)
# Why a hold ended that is no fault: the user's or the tenant's own doing.
WANTED: Final = frozenset({"stopped", "client_left", "moderated"})


@dataclass(frozen=True, kw_only=True)
class Span:
    """Days from one to another, both included, in a time zone."""

    first: date
    last: date
    zone: ZoneInfo

    @property
    def length(self) -> int:
        """How many days it has."""
        return (self.last - self.first).days + 1

    @property
    def before(self) -> "Span":
        """Return as many days right before it."""
        return Span(first=self.first - timedelta(days=self.length), last=self.first - timedelta(days=1), zone=self.zone)

    def days(self) -> Iterator[date]:
        """Yield its days."""
        return (self.first + timedelta(days=number) for number in range(self.length))

    def moments(self) -> tuple[datetime, datetime]:
        """Return where it begins, and where the day after it does."""
        first, end = (datetime.combine(day, time(), self.zone) for day in (self.first, self.last + timedelta(days=1)))
        return first, end


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A span's figures by day, by price list item, and of failures by reason.

    The names are those of `DailyUsage`, and recharges (micro-yuan), orders, new_users, active_users, failures.
    """

    by_day: Mapping[date, Mapping[str, int]] = field(default_factory=dict)
    by_sku: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    reasons: Mapping[date, Mapping[str, int]] = field(default_factory=dict)

    def total(self, span: Span, name: str) -> int:
        """Return a figure's sum over a span of days that were read."""
        return sum(self.by_day[day][name] for day in span.days() if day in self.by_day)

    def series(self, span: Span, name: str) -> list[int]:
        """Return a figure of each day of a span."""
        return [self.by_day[day][name] if day in self.by_day else 0 for day in span.days()]


def read(*, days: Span, items: Span) -> Figures:
    """Return the figures of each of `days`, and by price list item those of `items`, a span within them."""
    by_day: defaultdict[date, Counter[str]] = defaultdict(Counter)
    by_sku: defaultdict[str, Counter[str]] = defaultdict(Counter)
    reasons: defaultdict[date, Counter[str]] = defaultdict(Counter)
    for day, sku, sums in _usage(days):
        by_day[day].update(sums)
        if items.first <= day <= items.last:
            by_sku[sku].update(sums)
    for day, sku, reason, count in _failures(days):
        by_day[day]["failures"] += count
        reasons[day][reason] += count
        if items.first <= day <= items.last:
            by_sku[sku]["failures"] += count
    for day, paid, orders in _payments(days):
        by_day[day].update({"recharges": paid, "orders": orders})
    for name, rows in (("new_users", _new_users(days)), ("active_users", _active_users(days))):
        for day, count in rows:
            by_day[day][name] += count
    return Figures(by_day=by_day, by_sku=by_sku, reasons=reasons)


def failed(holds: QuerySet[Hold]) -> QuerySet[Hold]:
    """Keep the answers that came to nothing, or broke off, against everybody's will."""
    return holds.filter(FAILED).exclude(reason__in=WANTED)


def _usage(span: Span) -> Iterator[tuple[date, str, dict[str, int]]]:
    rows = DailyUsage.objects.filter(day__range=(span.first, span.last))
    summed: Any = rows.values("day", "sku").annotate(**{f"sum_{name}": Sum(name) for name in _SUMS}).order_by()
    for row in summed:
        yield row["day"], row["sku"], {name: int(row[f"sum_{name}"]) for name in _SUMS}


def _failures(span: Span) -> Iterator[tuple[date, str, str, int]]:
    rows = failed(Hold.objects.filter(quota_date__range=(span.first, span.last)))
    counted = rows.values_list("quota_date", "sku", "reason").annotate(count=Count("*")).order_by()
    return iter(counted)


def _payments(span: Span) -> Iterator[tuple[date, int, int]]:
    first, end = span.moments()
    rows = Order.objects.filter(state=Order.State.PAID, paid_at__gte=first, paid_at__lt=end)
    summed = _by_day(rows, "paid_at", span).annotate(paid=Sum("price"), orders=Count("*"))
    return ((row["date"], int(row["paid"]), row["orders"]) for row in summed)


def _new_users(span: Span) -> Iterator[tuple[date, int]]:
    first, end = span.moments()
    rows = EndUser.objects.filter(created_at__gte=first, created_at__lt=end)
    return ((row["date"], row["count"]) for row in _by_day(rows, "created_at", span).annotate(count=Count("*")))


def _active_users(span: Span) -> Iterator[tuple[date, int]]:
    rows = DailyUsers.objects.filter(day__range=(span.first, span.last)).values("day").annotate(count=Sum("active"))
    return ((row["day"], int(row["count"])) for row in rows.order_by())


def _by_day(rows: Any, moment: str, span: Span) -> Any:
    """Group rows by their day in the span's time zone."""
    return rows.annotate(date=TruncDate(moment, tzinfo=span.zone)).values("date").order_by()
