"""Coming into the portal and leaving it, one's own security, and in which language one reads it.

The doors are the admins' (tenants/doors.py): the same counts of guesses, second factors and sessions.
"""

from typing import Any

import structlog
from django import forms
from django.contrib.auth import logout
from django.contrib.auth.forms import AuthenticationForm, SetPasswordForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from tenants import doors, scope
from tenants.errors import ProductError
from tenants.models import StaffUser
from tenants.models.tenant import LANGUAGES
from tenants.portal.access import (
    PortalRequest,
    must_have_second_factor,
    on_platform_host,
    reseller_even_half,
    reseller_of,
)

log = structlog.get_logger(__name__)

_SHOWN = ("GET", "HEAD", "POST")


class LogInForm(AuthenticationForm):
    """Says the same about a wrong password and about a person who works for no reseller; counts tries."""

    def clean(self) -> dict[str, Any]:
        """Count the try before the password is looked at."""
        if self.request is not None:
            try:
                doors.count_guess(self.request, str(self.cleaned_data.get("username", "")))
            except ProductError as refused:
                raise forms.ValidationError(doors.when_again(refused)) from None
        return super().clean()

    def confirm_login_allowed(self, user: StaffUser) -> None:
        """Let in a reseller's people."""
        super().confirm_login_allowed(user)
        if reseller_of(user) is None:
            raise self.get_invalid_login_error()


@on_platform_host
@sensitive_post_parameters()
def log_in(request: HttpRequest) -> HttpResponse:
    """Show the log-in form; who is in already goes on, and who has a second factor is asked for it."""
    onward = _onward(request)
    if reseller_of(request.user) is not None:
        return redirect(onward)
    form = LogInForm(request, data=request.POST or None)
    if request.method == "POST" and form.is_valid():
        staff = form.get_user()
        log.info("portal_log_in", staff=staff.pk)
        return redirect(onward if doors.pass_password(request, staff, onward) else "portal:second_factor")
    return render(request, "portal/log_in.html", {"title": _("Log in"), "form": form, "next": onward})


class CodeForm(forms.Form):
    """A code of the app, or a recovery code."""

    code = forms.CharField(
        label=gettext_lazy("Code"),
        max_length=20,
        widget=forms.TextInput(attrs={"autocomplete": "one-time-code", "inputmode": "numeric"}),
    )


@on_platform_host
@sensitive_post_parameters()
@require_http_methods(_SHOWN)
def second_factor(request: HttpRequest) -> HttpResponse:
    """Ask for the second factor; without a right password just before, go back to the log-in."""
    found = doors.half_way(request)
    if found is None or reseller_of(found[0]) is None:
        return redirect("portal:log_in")
    form = CodeForm(request.POST or None)
    if form.is_valid():
        try:
            doors.pass_second(request, found[0], form.cleaned_data["code"])
        except ProductError as refused:
            form.add_error("code", doors.when_again(refused))
        else:
            log.info("portal_second_factor", staff=found[0].pk)
            return redirect(found[1])
    context = {
        "title": _("Second factor"),
        "form": form,
        "said": _("Type the code that your authenticator app shows, or one of your recovery codes."),
        "button": _("Log in"),
        "links": [(reverse("portal:log_in"), _("Log in as somebody else"))],
    }
    return render(request, "portal/door.html", context)


class ForgottenForm(forms.Form):
    """Whose password was forgotten."""

    email = forms.EmailField(label=gettext_lazy("E-mail"), widget=forms.EmailInput(attrs={"autocomplete": "email"}))


@on_platform_host
@require_http_methods(_SHOWN)
def forgot(request: HttpRequest) -> HttpResponse:
    """Mail a link that sets a new password; the answer is the same whoever there is."""
    form = ForgottenForm(request.POST or None)
    context: dict[str, Any] = {"title": _("Forgotten password"), "links": [_to_log_in()]}
    if form.is_valid():
        try:
            doors.mail_resets(
                request,
                form.cleaned_data["email"],
                admits=lambda staff: reseller_of(staff) is not None,
                link=lambda *keys: reverse("portal:reset", args=keys),
            )
        except ProductError as refused:
            form.add_error(None, doors.when_again(refused))
        else:
            said = _("If there is an account with this address here, a mail is on its way to it.")
            return render(request, "portal/door.html", {**context, "said": said})
    said = _("You will be mailed a link that sets a new password.")
    return render(request, "portal/door.html", {**context, "said": said, "form": form, "button": _("Send")})


@on_platform_host
@sensitive_post_parameters()
@require_http_methods(_SHOWN)
def reset(request: HttpRequest, person: str, token: str) -> HttpResponse:
    """Set a new password by a mailed link; every session ends, and the second factor stays."""
    staff = doors.whose_link(person, token)
    context: dict[str, Any] = {"title": _("New password"), "links": [_to_log_in()]}
    if staff is None or reseller_of(staff) is None:
        said = _("This link was used or has expired. Please ask for a new one.")
        return render(request, "portal/door.html", {**context, "said": said}, status=404)
    form = SetPasswordForm(staff, request.POST or None)
    if request.method == "POST" and form.is_valid():
        doors.renew(staff, form.cleaned_data["new_password1"])
        said = _("Your password is set, and every session has ended. Please log in.")
        return render(request, "portal/door.html", {**context, "said": said})
    return render(request, "portal/door.html", {**context, "form": form, "button": _("Save")})


def _to_log_in() -> tuple[str, str]:
    return reverse("portal:log_in"), _("Log in")


@reseller_even_half
@sensitive_post_parameters()
@require_http_methods(_SHOWN)
def security(request: PortalRequest) -> HttpResponse:
    """Show one's own second factor and sessions, and change them."""
    shown: dict[str, Any] = {}
    must = must_have_second_factor()
    form = CodeForm(request.POST if "code" in request.POST else None)
    if request.method == "POST":
        try:
            with scope.platform("the log of changes of a reseller's people is the operator's"):
                shown = doors.act(request, request.user, form, must=must)
        except ProductError as refused:
            form.add_error("code", doors.when_again(refused))
    standing = doors.standing(request, request.user, must=must, issuer=_("Resellers' portal"))
    return render(request, "portal/security.html", {**standing, "title": _("Security"), "form": form, **shown})


@on_platform_host
@require_POST
def log_out(request: HttpRequest) -> HttpResponse:
    """End the session."""
    log.info("portal_log_out", staff=request.user.pk)
    logout(request)
    return redirect("portal:log_in")


@reseller_even_half
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
