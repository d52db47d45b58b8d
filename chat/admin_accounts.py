"""Upstream accounts and routes in the admin: set up, tried, and looked at while they work.

The operator's site has all of them, the tenant's its own: owners bring keys of their own, and say which offers those
answer.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

import structlog
from django.conf import settings
from django.contrib import admin, messages
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext_lazy as _

from chat.accounts import Trial, health_of_accounts, try_account
from chat.events import FailureKind
from chat.models import UpstreamAccount
from chat.upstream.health import Health, State
from tenants.adminsite import SecretField, SecretsForm, SecretsModelAdmin, TenantModelAdmin
from tenants.models import Membership

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

log = structlog.get_logger(__name__)

Role = Membership.Role

FAILURES: Final[dict[str, "_StrOrPromise"]] = {
    FailureKind.AUTH: _("the key is not accepted"),
    FailureKind.QUOTA: _("the account is out of money"),
    FailureKind.RATE: _("too many requests"),
    FailureKind.CONTEXT_TOO_LONG: _("the prompt is too long for the model"),
    FailureKind.CONTENT: _("the provider's moderation refuses"),
    FailureKind.REQUEST: _("the request is refused: is the model's name right?"),
    FailureKind.OVERLOAD: _("the provider is overloaded or ill"),
    FailureKind.NETWORK: _("no connection, or it broke off"),
    FailureKind.TIMEOUT: _("no answer in time"),
    FailureKind.PROTOCOL: _("what answers there does not speak this dialect"),
    FailureKind.EMPTY: _("an answer without output"),
}

_STATES: Final = {
    State.CLOSED: _("well"),
    State.OPEN: _("left alone after failures"),
    State.HALF_OPEN: _("about to be tried again"),
}


class UpstreamAccountForm(SecretsForm):
    """What is set up of an account with a provider."""

    api_key = SecretField(_("API key"))

    class Meta:
        model = UpstreamAccount
        fields: ClassVar[list[str]] = [
            "tenant",
            "name",
            "dialect",
            "base_url",
            "api_key",
            "api_version",
            "is_enabled",
            "test_model",
            "model_names",
            "parameter_rules",
            "max_concurrent",
            "max_per_minute",
            "connect_seconds",
            "first_token_seconds",
            "idle_seconds",
            "total_seconds",
        ]

    def clean(self) -> dict[str, Any]:
        """Take an empty field for an empty object."""
        cleaned = super().clean()
        for name in ("model_names", "parameter_rules"):
            cleaned[name] = {} if cleaned.get(name, {}) is None else cleaned.get(name)
        return cleaned


_CONNECTION: Final = ("name", "dialect", "base_url", "api_key", "api_version", "is_enabled", "test_model")
_TIMES: Final = ("connect_seconds", "first_token_seconds", "idle_seconds", "total_seconds")


class UpstreamAccountAdmin(SecretsModelAdmin):
    """Accounts with providers; the tenant's site shows the tenant's own, and its owners look after them."""

    editable_by: ClassVar[frozenset[str]] = frozenset({Role.OWNER.value})
    form = UpstreamAccountForm
    list_display = ("name", "dialect", "base_url", "is_enabled", "created_at")
    list_filter = ("dialect", "is_enabled")
    search_fields = ("name", "base_url")
    actions = ("try_connection",)
    list_before_template = "upstreams/before_list.html"  # type: ignore[assignment]  # unfold says None, and takes a name

    def get_urls(self) -> list[Any]:
        """Add the page of health."""
        view = self.admin_site.admin_view(self.health)
        return [path("health/", view, name="chat_upstreamaccount_health"), *super().get_urls()]

    def get_fieldsets(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Group what is asked; the tenant is the operator's to choose."""
        owner = ("tenant",) if self._on_platform else ()
        groups: list[Any] = [
            (None, {"fields": (*owner, *_CONNECTION)}),
            (_("What is changed in requests"), {"fields": ("model_names", "parameter_rules")}),
            (_("Limits"), {"fields": ("max_concurrent", "max_per_minute")}),
            (_("Times"), {"fields": _TIMES, "description": _("Empty: as the platform has it.")}),
        ]
        return self.shown_to(request, obj, groups)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the way to the page of health above the list."""
        return super().changelist_view(request, {**(extra_context or {}), "health_url": self._url("health")})

    @admin.action(description=_("Test the connection"), permissions=["change"])
    def try_connection(self, request: HttpRequest, accounts: QuerySet[UpstreamAccount]) -> None:
        """Ask each account a short question, and say how it went."""
        for account in accounts:
            trial = try_account(account)
            said, level = _say(account, trial)
            log.info("upstream_account_test", account=account.pk, by=request.user.get_username())
            self.log_change(request, account, str(_("The connection was tested.")))
            self.message_user(request, said, level)

    def health(self, request: HttpRequest) -> HttpResponse:
        """Show how each account fares at the moment; the page loads itself anew."""
        if not self.has_view_permission(request):
            return HttpResponse(status=403)
        accounts = list(self.get_queryset(request).select_related("tenant").order_by("tenant", "name", "pk"))
        found, is_shared = health_of_accounts(accounts)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Health of upstream accounts"),
            "opts": self.opts,
            "back": self._url("changelist"),
            "rows": [_row(account, found[account.pk]) for account in accounts],
            "on_platform": self._on_platform,
            "is_shared": is_shared,
            "zone": settings.TIME_ZONE if self._on_platform else request.tenant.timezone,  # type: ignore[attr-defined]
        }
        return TemplateResponse(request, "upstreams/health.html", context)

    def _url(self, page: str) -> str:
        return reverse(f"{self.admin_site.name}:chat_upstreamaccount_{page}")


def _say(account: UpstreamAccount, trial: Trial | None) -> tuple["_StrOrPromise", int]:
    if trial is None:
        return _("%(account)s: name a model for tests, or let an offer use the account.") % {
            "account": account.name
        }, messages.WARNING
    about = {"account": account.name, "model": trial.model, "time": trial.first_token_ms}
    if trial.failure is None:
        return _("%(account)s: %(model)s answers, its first token after %(time)s ms.") % about, messages.SUCCESS
    about["fault"] = FAILURES[trial.failure]
    if trial.status:
        about["fault"] = f"{about['fault']} (HTTP {trial.status})"
    return _("%(account)s: %(model)s does not answer: %(fault)s.") % about, messages.ERROR


def _row(account: UpstreamAccount, health: Health) -> dict[str, Any]:
    """Return what the page shows of an account."""
    ended = health.good + health.bad
    return {
        "account": account,
        "state": _STATES[health.state] if account.is_enabled else _("switched off"),
        "is_well": health.state is State.CLOSED and not health.rest_until,
        "open_until": _moment(health.open_until),
        "rest_until": _moment(health.rest_until),
        "in_flight": health.in_flight,
        "calls": health.calls,
        "failed_percent": round(100 * health.bad / ended) if ended else None,
        "first_token_ms": health.first_token_ms,
        "last_failure": FAILURES.get(health.last_failure, ""),
        "last_failed_at": _moment(health.last_failed_at),
    }


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


class ModelRouteAdmin(TenantModelAdmin):
    """Other accounts that answer an offer. A tenant's owners choose among the tenant's own."""

    editable_by: ClassVar[frozenset[str]] = frozenset({Role.OWNER.value})
    list_display = ("offer", "account", "upstream_model", "priority", "weight", "is_enabled")
    list_filter = ("is_enabled",)
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "offer", "account")
    search_fields = ("offer__slug", "account__name", "upstream_model")
    ordering = ("offer", "priority", "pk")
