"""The pages before an admin's log-in: accepting an invitation.

They belong to a site, answer on its hosts only, and show nothing of it to whoever is not let in.
"""

from typing import TYPE_CHECKING, Any

import structlog
from django import forms
from django.contrib.auth import authenticate, login
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from unfold.sites import UnfoldAdminSite
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from tenants import invitations
from tenants.errors import ProductError
from tenants.models import StaffInvitation, StaffUser, Tenant

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

log = structlog.get_logger(__name__)

MAX_PASSWORD = 128


def show(
    site: UnfoldAdminSite,
    request: HttpRequest,
    *,
    title: "_StrOrPromise",
    form: forms.Form | None = None,
    **context: Any,
) -> TemplateResponse:
    """Answer with a page in the log-in's look; no other site is told of an address that is itself a key."""
    given = {**site.each_context(request), "title": title, "form": form, "button": title, **context}
    page = TemplateResponse(request, "doors/door.html", given)
    page["Referrer-Policy"] = "same-origin"
    page["Cache-Control"] = "no-store"
    return page


def password_field(label: "_StrOrPromise", *, is_new: bool = False) -> forms.CharField:
    """Return a field for a password, present or new."""
    hint = {"autocomplete": "new-password" if is_new else "current-password"}
    return forms.CharField(
        label=label, strip=False, max_length=MAX_PASSWORD, widget=UnfoldAdminPasswordWidget(attrs=hint)
    )


class NewPasswordForm(forms.Form):
    """A new password, twice."""

    password = password_field(_("New password"), is_new=True)
    again = password_field(_("New password, again"), is_new=True)

    def clean_again(self) -> str:
        """Refuse two different ones."""
        again: str = self.cleaned_data["again"]
        if again != self.cleaned_data.get("password"):
            raise forms.ValidationError(_("The two passwords are not the same."))
        return again


class AccountForm(forms.Form):
    """An account that there is."""

    username = forms.CharField(
        label=_("User name"), max_length=150, widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "username"})
    )
    password = password_field(_("Password"))


def join(site: UnfoldAdminSite, request: HttpRequest, token: str) -> HttpResponse:
    """Accept an invitation: with a new account, with one that there is, or as who is logged in."""
    tenant: Tenant | None = getattr(request, "tenant", None)
    if tenant is None:
        raise Http404
    try:
        invitation = invitations.open_invitation(tenant=tenant, token=token)
    except ProductError as gone:
        page = show(site, request, title=_("Invitation"), said=gone.msg)
        page.status_code = gone.status
        return page
    if isinstance(request.user, StaffUser):
        return _join_as_oneself(site, request, invitation, token)
    has_account = "account" in request.GET
    form = (AccountForm if has_account else NewPasswordForm)(request.POST or None)
    if form.is_valid():
        try:
            staff = _with_account(request, form, token) if has_account else _as_new(request, form, token)
        except ProductError as refused:
            form.add_error(None, str(refused.msg))
        else:
            return _welcome(site, request, invitation, staff)
    other = (request.path, _("I am new here")) if has_account else ("?account", _("I have an account already"))
    return _ask(site, request, invitation, form, links=[other])


def _ask(
    site: UnfoldAdminSite, request: HttpRequest, invitation: StaffInvitation, form: forms.Form, **context: Any
) -> HttpResponse:
    facts = {"role": invitation.get_role_display(), "email": invitation.email}
    said = _("You are invited as %(role)s. Your user name is %(email)s.") % facts
    if isinstance(form, AccountForm):
        said = _("You are invited as %(role)s. Log in to accept.") % facts
    return show(site, request, title=_("Accept the invitation"), form=form, said=said, **context)


def _join_as_oneself(
    site: UnfoldAdminSite, request: HttpRequest, invitation: StaffInvitation, token: str
) -> HttpResponse:
    """Let who is logged in accept, by a button: opening a link does nothing."""
    tenant: Tenant = request.tenant  # type: ignore[attr-defined]
    staff: Any = request.user
    if request.method == "POST":
        invitations.join(tenant=tenant, token=token, staff=staff)
        return HttpResponseRedirect(reverse("admin:index", current_app=site.name))
    facts = {"role": invitation.get_role_display(), "name": staff.get_username()}
    said = _("You are invited as %(role)s, and are logged in as %(name)s.") % facts
    return show(site, request, title=_("Accept the invitation"), form=forms.Form(), said=said)


def _as_new(request: HttpRequest, form: forms.Form, token: str) -> StaffUser:
    tenant: Tenant = request.tenant  # type: ignore[attr-defined]
    return invitations.join_as_new(tenant=tenant, token=token, password=form.cleaned_data["password"])


def _with_account(request: HttpRequest, form: forms.Form, token: str) -> StaffUser:
    staff = authenticate(request, **form.cleaned_data)
    if not isinstance(staff, StaffUser):
        raise invitations.wrong_account()
    tenant: Tenant = request.tenant  # type: ignore[attr-defined]
    invitations.join(tenant=tenant, token=token, staff=staff)
    return staff


def _welcome(
    site: UnfoldAdminSite, request: HttpRequest, invitation: StaffInvitation, staff: StaffUser
) -> HttpResponse:
    login(request, staff, backend="django.contrib.auth.backends.ModelBackend")
    log.info("staff_joined", staff=staff.pk, tenant_id=invitation.tenant_id, role=invitation.role)
    return HttpResponseRedirect(reverse("admin:index", current_app=site.name))
