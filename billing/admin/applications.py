"""How resellers come, in the operator's admin: the terms of service, applications to decide, who accepted what."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog
from django import forms
from django.contrib import admin
from django.db import models
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextInputWidget

from billing.admin.money import button
from billing.admin.resale import ReasonActionForm, act_on_each, wanted_reason
from tenants import signup
from tenants.adminsite import OperatorModelAdmin, ReadOnlyOperatorModelAdmin
from tenants.models import ResellerApplication, ResellerTerms, StaffUser, TermsAcceptance

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

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


class RefusalForm(forms.Form):
    """Why an application is refused: the applicant reads it."""

    reason = forms.CharField(label=_("reason"), max_length=200, widget=UnfoldAdminTextInputWidget())


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
    actions_detail: Any = ("approve_this", "refuse_this")

    def has_decide_permission(self, request: HttpRequest, _object_id: object = None) -> bool:
        """Let the operator decide."""
        return self.has_view_permission(request)

    @button(description=_("Approve"), url_path="approve", permissions=["decide"])
    def approve_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Approve the application that is shown, after a second look."""
        return self._decide(request, object_id, forms.Form(), _("Approve"), self.approve)

    @button(description=_("Refuse"), url_path="refuse", permissions=["decide"])
    def refuse_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Refuse the application that is shown, and say why."""
        return self._decide(request, object_id, RefusalForm(request.POST or None), _("Refuse"), self.refuse)

    def _decide(
        self,
        request: HttpRequest,
        object_id: str,
        form: forms.Form,
        title: "_StrOrPromise",
        act: Callable[[HttpRequest, QuerySet[ResellerApplication]], None],
    ) -> HttpResponse:
        row = self.get_object(request, object_id)
        if row is None:
            raise Http404
        back = reverse(f"{self.admin_site.name}:tenants_resellerapplication_change", args=[row.pk])
        if request.method == "POST" and (not form.fields or form.is_valid()):
            act(request, ResellerApplication.objects.filter(pk=row.pk))
            return HttpResponseRedirect(back)
        facts = [(_("name"), row.name), (_("slug"), row.slug), (_("e-mail"), row.email)]
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "form": form,
            "back": back,
            "title": title,
            "row": row,
            "facts": facts,
        }
        return TemplateResponse(request, "admin/billing/money_form.html", context)

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
