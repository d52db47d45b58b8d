"""How resellers come, in the operator's admin: the terms of service, applications to decide, who accepted what."""

from typing import Any

import structlog
from django.contrib import admin
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from billing.admin.resale import ReasonActionForm, act_on_each, wanted_reason
from tenants import signup
from tenants.adminsite import OperatorModelAdmin, ReadOnlyOperatorModelAdmin
from tenants.models import ResellerApplication, ResellerTerms, StaffUser, TermsAcceptance

logger = structlog.get_logger(__name__)


@admin.register(ResellerTerms)
class ResellerTermsAdmin(OperatorModelAdmin):
    """Terms of service: a new version is added, and none is changed. The first one opens the applications."""

    list_display = ("version", "published_at")
    ordering = ("-published_at", "-pk")

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: who accepted it accepted these words."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse, as above."""
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Publish, and write who did."""
        super().save_model(request, obj, form, change)
        logger.info("reseller_terms_published", staff=request.user.pk, row=obj.pk)


@admin.register(ResellerApplication)
class ResellerApplicationAdmin(ReadOnlyOperatorModelAdmin):
    """Applications: those that wait are approved, which makes the reseller and invites its person, or refused."""

    list_display = ("name", "slug", "contact", "email", "phone", "state", "created_at", "decided_at", "reseller")
    list_filter = ("state",)
    search_fields = ("name", "slug", "contact", "email", "phone")
    list_select_related = ("reseller",)
    ordering = ("-created_at", "-pk")
    exclude = ("digest",)
    action_form = ReasonActionForm
    actions = ("approve", "refuse")

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Let the operator decide."""
        return self.has_view_permission(request)

    @admin.action(description=_("Approve: open the reseller and invite"), permissions=["decide"])
    def approve(self, request: HttpRequest, rows: QuerySet[ResellerApplication]) -> None:
        """Make resellers of them."""
        act_on_each(
            self,
            request,
            rows,
            lambda row: signup.approve(
                application_id=row.pk,
                decided_by=_staff(request),
                link=lambda *carried: request.build_absolute_uri(reverse("portal:invitation", args=carried)),
            ),
            _("The application was approved."),
        )

    @admin.action(description=_("Refuse (with a reason)"), permissions=["decide"])
    def refuse(self, request: HttpRequest, rows: QuerySet[ResellerApplication]) -> None:
        """Refuse them, and say why."""
        if not (reason := wanted_reason(self, request)):
            return
        act_on_each(
            self,
            request,
            rows,
            lambda row: signup.refuse(application_id=row.pk, decided_by=_staff(request), reason=reason),
            _("The application was refused."),
        )


@admin.register(TermsAcceptance)
class TermsAcceptanceAdmin(ReadOnlyOperatorModelAdmin):
    """Who accepted which terms: when, and from which address."""

    list_display = ("reseller", "staff", "terms", "address", "accepted_at")
    list_filter = ("terms",)
    list_select_related = ("reseller", "staff", "terms")
    ordering = ("-accepted_at", "-pk")


def _staff(request: HttpRequest) -> StaffUser:
    if not isinstance(request.user, StaffUser):
        raise TypeError("the operator's people are staff users")
    return request.user
