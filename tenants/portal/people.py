"""Coming into the portal and leaving it, and in which language one reads it."""

from typing import Any

import structlog
from django import forms
from django.conf import settings
from django.contrib.auth import login, logout
from django.contrib.auth.forms import AuthenticationForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from tenants import throttle
from tenants.api import address_of
from tenants.errors import ProductError
from tenants.models import StaffUser
from tenants.models.tenant import LANGUAGES
from tenants.portal.access import PortalRequest, on_platform_host, reseller_of, reseller_required

log = structlog.get_logger(__name__)

_WINDOW = 900


class LogInForm(AuthenticationForm):
    """Says the same about a wrong password and about a person who works for no reseller; counts tries."""

    def clean(self) -> dict[str, Any]:
        """Count the try before the password is looked at."""
        name, address = str(self.cleaned_data.get("username", "")), address_of(self.request) if self.request else ""
        try:
            throttle.count(what="portal_login", who=name.lower(), limit=settings.LOGIN_TRIES, seconds=_WINDOW)
            throttle.count(what="portal_address", who=address, limit=10 * settings.LOGIN_TRIES, seconds=_WINDOW)
        except ProductError as refused:
            raise forms.ValidationError(str(refused.msg)) from None
        return super().clean()

    def confirm_login_allowed(self, user: StaffUser) -> None:
        """Let in a reseller's people."""
        super().confirm_login_allowed(user)
        if reseller_of(user) is None:
            raise self.get_invalid_login_error()


@on_platform_host
@sensitive_post_parameters()
def log_in(request: HttpRequest) -> HttpResponse:
    """Show the log-in form; who is in already goes on."""
    onward = _onward(request)
    if reseller_of(request.user) is not None:
        return redirect(onward)
    form = LogInForm(request, data=request.POST or None)
    if request.method == "POST" and form.is_valid():
        staff = form.get_user()
        login(request, staff)
        log.info("portal_log_in", staff=staff.pk)
        return redirect(onward)
    return render(request, "portal/log_in.html", {"title": _("Log in"), "form": form, "next": onward})


@on_platform_host
@require_POST
def log_out(request: HttpRequest) -> HttpResponse:
    """End the session."""
    log.info("portal_log_out", staff=request.user.pk)
    logout(request)
    return redirect("portal:log_in")


@reseller_required
@require_POST
def language(request: PortalRequest) -> HttpResponse:
    """Keep the language that the person reads the portal in."""
    chosen = request.POST.get("language", "")
    if chosen in dict(LANGUAGES):
        StaffUser.objects.filter(pk=request.user.pk).update(language=chosen)
        log.info("portal_language", staff=request.user.pk, language=chosen)
    return redirect(_onward(request))


def _onward(request: HttpRequest) -> str:
    """Return where to go on, of this site only."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    is_ours = url_has_allowed_host_and_scheme(
        wanted, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return wanted if is_ours else reverse("portal:home")
