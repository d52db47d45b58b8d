"""Filters of the admins' lists, by days of the tenant's time zone or the operator's, and the pages of long ones."""

from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.paginator import Paginator
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _
from unfold.widgets import INPUT_CLASSES

if TYPE_CHECKING:
    from django.contrib.admin.views.main import ChangeList

    _Paginator = Paginator[Any]
else:
    _Paginator = Paginator  # cannot be subscripted at run time

_TEMPLATE: Final = "admin/days_filter.html"


def zone_here(request: HttpRequest) -> ZoneInfo:
    """Return the time zone that a request's days are of."""
    tenant = getattr(request, "tenant", None)
    return ZoneInfo(tenant.timezone if tenant else settings.TIME_ZONE)


def days_asked(query: Mapping[str, Any], name: str) -> tuple[date | None, date | None]:
    """Return the first and the last day that a query asks for by `<name>_from` and `<name>_to`."""
    first, last = (_day(query.get(f"{name}_{end}")) for end in ("from", "to"))
    return first, last


def _day(value: Any) -> date | None:
    """Return the day that is spelt, None for none or for what is no day."""
    text = value[-1] if isinstance(value, list) and value else value
    try:
        return date.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


class LongPaginator(_Paginator):
    """Counts no further than anybody turns pages: for lists whose rows all have to be looked at to be counted."""

    MOST: Final = 20_000

    @cached_property
    def count(self) -> int:
        """Return how many rows there are, `MOST` where there are more."""
        return int(self.object_list[: self.MOST].count())  # type: ignore[attr-defined]  # it is a query set


class DaysForm(forms.Form):
    """Two dates, as the browser asks for them."""

    def __init__(self, *, name: str, first: date | None, last: date | None) -> None:
        super().__init__({f"{name}_from": first, f"{name}_to": last})
        for end, label in (("from", _("from")), ("to", _("to"))):
            attributes = {"type": "date", "class": " ".join(INPUT_CLASSES), "aria-label": label, "title": label}
            widget = forms.DateInput(attrs=attributes, format="%Y-%m-%d")
            self.fields[f"{name}_{end}"] = forms.DateField(label="", required=False, widget=widget)


class _Choices:
    """How a filter by days is shown: two dates."""

    def shown(self, request: HttpRequest, name: str, used: Mapping[str, Any]) -> Iterator[Any]:
        first, last = days_asked(used, name)
        yield {"form": DaysForm(name=name, first=first, last=last)}


class DaysFilter(_Choices, admin.FieldListFilter):
    """Keeps the rows of a day or a moment from one day to another, both included."""

    template = _TEMPLATE

    def __init__(  # noqa: PLR0913, PLR0917  Django's signature
        self,
        field: Any,
        request: HttpRequest,
        params: dict[str, Any],
        model: type[models.Model],
        model_admin: Any,
        field_path: str,
    ) -> None:
        self.request = request
        super().__init__(field, request, params, model, model_admin, field_path)

    def expected_parameters(self) -> list[str | None]:
        """Name the two days."""
        return [f"{self.field_path}_from", f"{self.field_path}_to"]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the rows between; what is no day keeps all."""
        first, last = days_asked(self.used_parameters, self.field_path)
        if not isinstance(self.field, models.DateTimeField):
            bounds: dict[str, Any] = {"gte": first, "lte": last}
        else:
            zone = zone_here(request)
            bounds = {
                "gte": first and datetime.combine(first, time(), zone),
                "lt": last and last < date.max and datetime.combine(last + timedelta(days=1), time(), zone),
            }
        return queryset.filter(**{f"{self.field_path}__{how}": value for how, value in bounds.items() if value})

    def choices(self, changelist: "ChangeList") -> Iterator[Any]:
        """Show the days that are chosen."""
        return self.shown(self.request, self.field_path, self.used_parameters)


class OtherDaysFilter(_Choices, admin.ListFilter):
    """The same for what is no column of the row; a subclass names it and says what it keeps."""

    template = _TEMPLATE
    parameter_name = ""

    def __init__(
        self, request: HttpRequest, params: dict[str, Any], model: type[models.Model], model_admin: Any
    ) -> None:
        super().__init__(request, params, model, model_admin)
        self.request = request
        for name in (f"{self.parameter_name}_from", f"{self.parameter_name}_to"):
            if name in params:
                self.used_parameters[name] = params.pop(name)

    def has_output(self) -> bool:
        """Show it."""
        return True

    def expected_parameters(self) -> list[str | None]:
        """Name the two days."""
        return [f"{self.parameter_name}_from", f"{self.parameter_name}_to"]

    def between(self, rows: QuerySet[Any], first: date, last: date) -> QuerySet[Any]:
        """Keep what belongs to the days from `first` to `last`."""
        raise NotImplementedError

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the rows between; where a day is missing, the other stands for it."""
        first, last = days_asked(self.used_parameters, self.parameter_name)
        if first is None and last is None:
            return queryset
        return self.between(queryset, first or last or date.min, last or first or date.max)

    def choices(self, changelist: "ChangeList") -> Iterator[Any]:
        """Show the days that are chosen."""
        return self.shown(self.request, self.parameter_name, self.used_parameters)
