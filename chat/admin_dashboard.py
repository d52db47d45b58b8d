"""The first page of both admins: pictures of a span of days, and every figure a way to the list behind it.

unfold calls `show` by its setting DASHBOARD_CALLBACK. Money is for owners, finance and the operator; users for all but
content staff; what was asked, and what failed, for everybody. What a person may not look at is not read for them.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db.models import Model
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from billing import figures
from billing.figures import Span
from billing.models import DailyUsage, Hold, Order
from billing.yuan import show_money, show_yuan
from chat.admin_accounts import FAILURES
from chat.models import ModelOffer
from tenants.adminsite import list_url, role_here
from tenants.models import EndUser, Membership

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

Role = Membership.Role

RANGES: Final = (1, 7, 30, 90)
DEFAULT_DAYS: Final = 30
MOST_DAYS: Final = 366
# A picture of a shorter span shows so many days, its own the last of them.
LEAST_DRAWN: Final = 7

_MONEY: Final = frozenset({Role.OWNER.value, Role.FINANCE.value})
_PEOPLE: Final = _MONEY | {Role.SUPPORT.value}

# Live: the names are those of `chat.pulse.Now`.
TILES: Final = (
    ("running", gettext_lazy("answers running now")),
    ("chats", gettext_lazy("chats in the last minute")),
    ("first_token_ms", gettext_lazy("median time to the first token, ms")),
    ("failed", gettext_lazy("errors in the last minute")),
)

_COLOURS: Final = ("var(--color-primary-600)", "#0d9488", "#d97706", "#db2777", "#64748b", "#65a30d")
_REASONS: Final[dict[str, "_StrOrPromise"]] = {
    **{f"upstream_{kind}": label for kind, label in FAILURES.items()},
    "upstream_broken": gettext_lazy("the answer broke off"),
    "expired": gettext_lazy("no sign of life: ended by the sweep"),
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number, where it leads (nowhere: ""), and by how many percent it is more than in the span before."""

    label: "_StrOrPromise"
    value: str
    url: str
    change: int | None = None


@dataclass(frozen=True, kw_only=True)
class Card:
    """A picture with its figures. `chart`, `options` and `links` are JSON: of these, a list's address for each day."""

    title: "_StrOrPromise"
    figures: Sequence[Figure]
    chart: str
    options: str
    links: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: a name, and its cells."""

    name: str
    cells: Sequence[Figure]


def show(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the dashboard to the context of a site's first page."""
    return {**context, "board": _Board(request).context()}


def span_of(query: Mapping[str, str], *, zone: ZoneInfo) -> Span:
    """Return the span that a query asks for: `days` up to today, or `from` and `to`; else the default."""
    today = timezone.localdate(timezone=zone)
    first, last = _day(query.get("from", "")), _day(query.get("to", ""))
    if first and last and first <= last:
        last = min(last, today + timedelta(days=1))
        first = max(min(first, last), last - timedelta(days=MOST_DAYS - 1))
        return Span(first=first, last=last, zone=zone)
    asked = query.get("days", "")
    days = int(asked) if asked in {str(number) for number in RANGES} else DEFAULT_DAYS
    return Span(first=today - timedelta(days=days - 1), last=today, zone=zone)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


class _Board:
    """One person's dashboard, of one request."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self._role = role_here(request)
        tenant = getattr(request, "tenant", None)
        self._is_platform = tenant is None
        self._zone = ZoneInfo(tenant.timezone if tenant else settings.TIME_ZONE)
        self._span = span_of(request.GET, zone=self._zone)
        drawn = max(self._span.length, LEAST_DRAWN)
        self._drawn = Span(first=self._span.last - timedelta(days=drawn - 1), last=self._span.last, zone=self._zone)
        first = min(self._span.before.first, self._drawn.first)
        self._known = figures.read(days=Span(first=first, last=self._span.last, zone=self._zone), items=self._span)

    def context(self) -> dict[str, Any]:
        """Return what the template shows."""
        return {
            "ranges": [(days, self._range_name(days), self._is_chosen(days)) for days in RANGES],
            "first": self._span.first.isoformat(),
            "last": self._span.last.isoformat(),
            "zone": self._zone.key,
            "cards": list(self._cards()),
            "model_heads": self._model_heads(),
            "models": list(self._models()),
            "reasons": list(self._reasons()),
            "tiles": TILES,
        }

    def _may(self, roles: frozenset[str]) -> bool:
        return self._is_platform or self._role in roles

    def _range_name(self, days: int) -> str:
        return _("Today") if days == 1 else _("%(days)d days") % {"days": days}

    def _is_chosen(self, days: int) -> bool:
        return self._span.length == days and self._span.last == timezone.localdate(timezone=self._zone)

    # --- links ---

    def _url(self, model: type[Model], **query: object) -> str:
        """Return the address of a filtered list, "" for a person who may not look there."""
        return list_url(self._request, model, **query)

    def _usage_url(self, first: date, last: date, **query: object) -> str:
        return self._url(DailyUsage, day_from=first, day_to=last, **query)

    def _failures_url(self, first: date, last: date, **query: object) -> str:
        return self._url(Hold, failed="yes", quota_date_from=first, quota_date_to=last, **query)

    def _orders_url(self, first: date, last: date) -> str:
        return self._url(Order, state__exact="paid", paid_at_from=first, paid_at_to=last)

    def _new_users_url(self, first: date, last: date) -> str:
        return self._url(EndUser, created_at_from=first, created_at_to=last)

    def _active_users_url(self, first: date, last: date) -> str:
        return self._url(EndUser, active_from=first, active_to=last)

    # --- figures ---

    def _total(self, span: Span, *names: str) -> int:
        """Return the sum of figures; a name with a minus before it is taken off."""
        return sum(_signed(name, lambda plain: self._known.total(span, plain)) for name in names)

    def _series(self, *names: str) -> list[int]:
        columns = [[sign * value for value in self._known.series(self._drawn, name)] for sign, name in _split(names)]
        return [sum(values) for values in zip(*columns, strict=True)]

    def _figure(
        self,
        label: "_StrOrPromise",
        names: tuple[str, ...],
        url: Callable[[date, date], str],
        show_it: Callable[[int], str],
    ) -> Figure:
        now, before = self._total(self._span, *names), self._total(self._span.before, *names)
        return Figure(
            label=label,
            value=show_it(now),
            url=url(self._span.first, self._span.last),
            change=round(100 * (now - before) / before) if before > 0 else None,
        )

    @property
    def _revenue(self) -> tuple[str, ...]:
        """What this site's people earn by: a tenant at its users, the platform at its tenants."""
        return ("wholesale_charge",) if self._is_platform else ("charge",)

    @property
    def _cost(self) -> tuple[str, ...]:
        """And what that costs them: the platform pays providers and resellers."""
        return ("cost", "own_share", "parent_share") if self._is_platform else ("wholesale_charge",)

    @property
    def _margin(self) -> tuple[str, ...]:
        return (*self._revenue, *(f"-{name}" for name in self._cost))

    # --- cards ---

    def _cards(self) -> Iterable[Card]:
        if self._may(_MONEY):
            yield self._revenue_card()
            yield self._margin_card()
            yield self._recharges_card()
        if self._may(_PEOPLE):
            yield self._users_card()
        yield self._chats_card()
        yield self._tokens_card()
        yield self._failures_card()

    def _revenue_card(self) -> Card:
        return self._card(
            _("Revenue"),
            [self._figure(_("charged for answers"), self._revenue, self._usage_url, _money)],
            [(_("Revenue"), _yuan(self._series(*self._revenue)))],
            self._usage_url,
        )

    def _margin_card(self) -> Card:
        cost, margin = self._series(*self._cost), self._series(*self._margin)
        return self._card(
            _("Cost and margin"),
            [
                self._figure(_("cost"), self._cost, self._usage_url, _money),
                self._figure(_("margin"), self._margin, self._usage_url, _money),
            ],
            [(_("cost"), _yuan(cost)), (_("margin"), _yuan(margin))],
            self._usage_url,
            stacked=True,
        )

    def _recharges_card(self) -> Card:
        return self._card(
            _("Recharges"),
            [
                self._figure(_("paid"), ("recharges",), self._orders_url, _money),
                self._figure(_("orders"), ("orders",), self._orders_url, _count),
            ],
            [(_("paid"), _yuan(self._series("recharges")))],
            self._orders_url,
        )

    def _users_card(self) -> Card:
        days = self._span.length
        label = _("active users") if days == 1 else _("active a day, on average")
        active = self._figure(label, ("active_users",), self._active_users_url, lambda total: _count(total // days))
        return self._card(
            _("Users"),
            [active, self._figure(_("new users"), ("new_users",), self._new_users_url, _count)],
            [(_("active users"), self._series("active_users")), (_("new users"), self._series("new_users"))],
            self._active_users_url,
            kind="line",
        )

    def _chats_card(self) -> Card:
        return self._card(
            _("Chats"),
            [
                self._figure(_("answers"), ("answers",), self._usage_url, _count),
                self._figure(_("of them free"), ("free_answers",), self._usage_url, _count),
            ],
            [(_("paid for"), self._series("answers", "-free_answers")), (_("free"), self._series("free_answers"))],
            self._usage_url,
            stacked=True,
        )

    def _tokens_card(self) -> Card:
        return self._card(
            _("Tokens"),
            [
                self._figure(_("prompt"), ("prompt_tokens",), self._usage_url, _count),
                self._figure(_("completion"), ("completion_tokens",), self._usage_url, _count),
            ],
            [(_("prompt"), self._series("prompt_tokens")), (_("completion"), self._series("completion_tokens"))],
            self._usage_url,
            stacked=True,
        )

    def _failures_card(self) -> Card:
        """Draw the most frequent reasons one by one, and the others together."""
        days = list(self._drawn.days())
        totals: Counter[str] = Counter()
        for day in days:
            totals.update(self._known.reasons.get(day, {}))
        named = [reason for reason, _number in totals.most_common(len(_COLOURS) - 1)]
        drawn = [(_reason(name), [self._known.reasons.get(day, {}).get(name, 0) for day in days]) for name in named]
        others = [
            sum(self._known.reasons.get(day, {}).values()) - sum(values[number] for _label, values in drawn)
            for number, day in enumerate(days)
        ]
        if any(others):
            drawn.append((_("others"), others))
        return self._card(
            _("Errors"),
            [self._figure(_("answers that failed"), ("failures",), self._failures_url, _count)],
            drawn or [(_("Errors"), others)],
            self._failures_url,
            stacked=True,
        )

    def _card(  # noqa: PLR0913  a picture's parts
        self,
        title: "_StrOrPromise",
        shown: Sequence[Figure],
        series: Sequence[tuple["_StrOrPromise", Sequence[object]]],
        url: Callable[[date, date], str],
        *,
        kind: str = "bar",
        stacked: bool = False,
    ) -> Card:
        days = list(self._drawn.days())
        data = {
            "labels": [f"{day:%m-%d}" for day in days],
            "datasets": [
                {
                    "type": kind,
                    "label": str(label),
                    "data": values,
                    "backgroundColor": colour,
                    "borderColor": colour,
                    "displayYAxis": True,
                }
                for (label, values), colour in zip(series, _COLOURS, strict=False)
            ],
        }
        return Card(
            title=title,
            figures=shown,
            chart=json.dumps(data, ensure_ascii=False),
            options=json.dumps(_options(stacked=stacked, has_legend=len(series) > 1)),
            links=json.dumps([url(day, day) for day in days]),
        )

    # --- tables ---

    def _model_heads(self) -> list["_StrOrPromise"]:
        money = [_("revenue"), _("cost"), _("margin")] if self._may(_MONEY) else []
        return [_("answers"), _("prompt tokens"), _("completion tokens"), *money, _("errors")]

    def _models(self) -> Iterable[Row]:
        names = self._names()
        by_use = sorted(self._known.by_sku.items(), key=lambda item: -item[1]["answers"])
        most = max((sums["answers"] for _sku, sums in by_use), default=0)
        for sku, sums in by_use:
            yield Row(name=names.get(sku, sku), cells=list(self._cells(sku, sums, most)))

    def _cells(self, sku: str, sums: Mapping[str, int], most: int) -> Iterable[Figure]:
        url = self._usage_url(self._span.first, self._span.last, sku__exact=sku)
        share = round(100 * sums["answers"] / most) if most else 0
        yield Figure(label=_("answers"), value=_count(sums["answers"]), url=url, change=share)
        yield Figure(label="", value=_count(sums["prompt_tokens"]), url=url)
        yield Figure(label="", value=_count(sums["completion_tokens"]), url=url)
        if self._may(_MONEY):
            for names in (self._revenue, self._cost, self._margin):
                value = sum(_signed(name, lambda plain: sums[plain]) for name in names)
                yield Figure(label="", value=_money(value), url=url)
        failed = self._failures_url(self._span.first, self._span.last, sku__exact=sku)
        yield Figure(label="", value=_count(sums["failures"]), url=failed)

    def _names(self) -> dict[str, str]:
        """Return what the tenant calls its models, by their price list items; the operator reads the items."""
        if self._is_platform:
            return {}
        offers = ModelOffer.objects.filter(sku__in=self._known.by_sku).order_by("pk")
        return {sku: f"{name} · {sku}" if name != sku else sku for sku, name in offers.values_list("sku", "name")}

    def _reasons(self) -> Iterable[Figure]:
        totals: Counter[str] = Counter()
        for day in self._span.days():
            totals.update(self._known.reasons.get(day, {}))
        for reason, count in totals.most_common():
            url = self._failures_url(self._span.first, self._span.last, reason__exact=reason)
            yield Figure(label=_reason(reason), value=_count(count), url=url)


def _split(names: Iterable[str]) -> list[tuple[int, str]]:
    return [(-1, name[1:]) if name.startswith("-") else (1, name) for name in names]


def _signed(name: str, value_of: Callable[[str], int]) -> int:
    [(sign, plain)] = _split([name])
    return sign * value_of(plain)


def _reason(reason: str) -> "_StrOrPromise":
    return _REASONS.get(reason, reason)


def _money(amount: int) -> str:
    """Show micro-yuan to the fen, rounded down: a figure of many rows needs no more."""
    fen = 10_000
    return show_money(amount // fen * fen)


def _count(number: int) -> str:
    return f"{number:,}"


def _yuan(amounts: Iterable[int]) -> list[str]:
    """Return amounts for a picture, which reads numbers out of texts."""
    return [show_yuan(amount) for amount in amounts]


def _options(*, stacked: bool, has_legend: bool) -> dict[str, Any]:
    """Return how a picture is drawn: in unfold's colours, without animation, every day's bar to be clicked."""
    grey = "#9ca3af"
    labels = {"color": grey, "boxHeight": 5, "boxWidth": 5, "pointStyle": "circle", "usePointStyle": True}
    axis = {"border": {"width": 0}, "stacked": stacked}
    return {
        "animation": False,
        "responsive": True,
        "maintainAspectRatio": False,
        "interaction": {"mode": "index", "intersect": False},
        "maxBarThickness": 14,
        "elements": {"point": {"radius": 2, "hitRadius": 8}, "line": {"borderWidth": 2, "tension": 0.25}},
        "plugins": {"legend": {"display": has_legend, "align": "end", "labels": labels}},
        "scales": {
            "x": {
                **axis,
                "ticks": {"color": grey, "maxRotation": 0, "autoSkipPadding": 12},
                "grid": {"display": False},
            },
            "y": {**axis, "beginAtZero": True, "ticks": {"color": grey, "maxTicksLimit": 5}, "grid": {"tickWidth": 0}},
        },
    }
