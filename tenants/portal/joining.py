"""How resellers come: they apply, confirm their address, and choose a password once they are let in."""

from typing import TYPE_CHECKING, Any, ClassVar

import structlog
from django import forms
from django.contrib.auth.forms import SetPasswordForm
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_safe

from tenants import doors, noticeboard, scope, sessions, signup, throttle
from tenants.api import address_of
from tenants.errors import ProductError
from tenants.letters import Letter, send_letter
from tenants.models import Notice, Reseller, ResellerApplication, ResellerTerms, StaffUser, TermsAcceptance
from tenants.portal.access import on_platform_host, reseller_of
from tenants.staffing import operators

if TYPE_CHECKING:
    _ApplicationForm = forms.ModelForm[ResellerApplication]
    _PasswordForm = SetPasswordForm[StaffUser]
else:
    _ApplicationForm, _PasswordForm = forms.ModelForm, SetPasswordForm  # cannot be subscripted at run time

log = structlog.get_logger(__name__)

_SHOWN = ("GET", "HEAD", "POST")
_DAY = 86400
# Applications from one network address, and to one mail address, in a day: mails go out to whom a stranger names.
PER_ADDRESS = 10
PER_EMAIL = 3


class ApplicationForm(_ApplicationForm):
    """Takes who applies, and that the terms are accepted."""

    accepted = forms.BooleanField(label=gettext_lazy("I have read the terms of service and accept them."))

    class Meta:
        model = ResellerApplication
        fields: ClassVar[list[str]] = ["name", "slug", "contact", "email", "phone", "about"]
        labels: ClassVar[dict[str, Any]] = {
            "slug": gettext_lazy("short name"),
            "name": gettext_lazy("name of the firm"),
            "about": gettext_lazy("what you want to do"),
        }
        help_texts: ClassVar[dict[str, Any]] = {
            "slug": gettext_lazy("Latin letters, digits and dashes. It becomes your user name."),
            "about": gettext_lazy("May stay empty."),
        }
        widgets: ClassVar[dict[str, Any]] = {
            "about": forms.Textarea(attrs={"rows": 4}),
            "email": forms.EmailInput(attrs={"autocomplete": "email"}),
            "phone": forms.TextInput(attrs={"autocomplete": "tel", "type": "tel"}),
        }

    def clean_slug(self) -> str:
        """Refuse a short name that someone has."""
        slug = str(self.cleaned_data["slug"]).lower()
        if is_taken(slug):
            raise forms.ValidationError(_("This short name is taken."))
        return slug


def is_taken(slug: str) -> bool:
    """Whether a short name is a reseller's, or a person's user name."""
    return (
        Reseller.objects.filter(slug__iexact=slug).exists() or StaffUser.objects.filter(username__iexact=slug).exists()
    )


@on_platform_host
@require_http_methods(_SHOWN)
def sign_up(request: HttpRequest) -> HttpResponse:
    """Take an application to become a reseller."""
    terms = signup.current_terms()
    form = ApplicationForm(request.POST or None)
    if terms and request.method == "POST" and form.is_valid() and _asked(request, form, terms):
        return render(
            request, "portal/told.html", {"title": _("Thank you"), "text": _("Please follow the link in our mail.")}
        )
    context = {"title": _("Become a reseller"), "form": form, "terms": terms, "broad": True}
    return render(request, "portal/sign_up.html", context)


def _asked(request: HttpRequest, form: ApplicationForm, terms: ResellerTerms) -> bool:
    given = form.cleaned_data
    try:
        # What was read is what is accepted: a newer version must be read first.
        if request.POST.get("terms") != terms.version:
            form.add_error(None, _("The terms of service have changed. Please read them."))
            return False
        throttle.count(what="reseller_sign_up", who=address_of(request), limit=PER_ADDRESS, seconds=_DAY)
        throttle.count(what="reseller_email", who=given["email"].lower(), limit=PER_EMAIL, seconds=_DAY)
    except ProductError as refused:
        form.add_error(None, str(refused.msg))
        return False
    signup.ask(
        terms=terms,
        address=address_of(request),
        link=lambda token: request.build_absolute_uri(reverse("portal:confirm", args=[token])),
        language=get_language() or "",
        **{name: given[name] for name in ApplicationForm.Meta.fields},
    )
    return True


@on_platform_host
@require_http_methods(_SHOWN)
def confirm(request: HttpRequest, token: str) -> HttpResponse:
    """Confirm an application by a button: mail programs open links on their own."""
    found = signup.find(token)
    if found is None:
        raise Http404
    if request.method == "POST":
        if signup.confirm(token):
            _tell_operator(found)
        return redirect("portal:confirm", token)
    if found.state == ResellerApplication.State.UNCONFIRMED:
        return render(request, "portal/confirm.html", {"title": _("Your application"), "application": found})
    text = _("Thank you. You will get a mail once the operator has decided.")
    return render(request, "portal/told.html", {"title": _("Your application"), "text": text})


def _tell_operator(application: ResellerApplication) -> None:
    """Leave the operator's people a notice that somebody waits for them, and mail it to each."""

    def write() -> Letter:
        facts = {"name": application.name, "contact": application.contact, "email": application.email}
        return Letter(
            _("%(name)s wants to become a reseller") % facts,
            _("%(contact)s (%(email)s) has applied for %(name)s. It waits under “resellers' applications”.") % facts,
        )

    with scope.platform("a notice to the operator"):
        noticeboard.put_up(kind=Notice.Kind.APPLICATION, texts=noticeboard.in_every_language(write))
    for person in operators():
        send_letter([person.email], language=person.language, write=write, staff=person.pk)


@on_platform_host
@require_safe
def terms(request: HttpRequest) -> HttpResponse:
    """Show the terms of service that count now."""
    current = signup.current_terms()
    if current is None:
        raise Http404
    return render(request, "portal/terms.html", {"title": _("Terms of service"), "terms": current, "broad": True})


class PasswordForm(_PasswordForm):
    """Takes a password and, from whom has not accepted them yet, that the terms are accepted."""

    accepted = forms.BooleanField(label=gettext_lazy("I have read the terms of service and accept them."))


@on_platform_host
@sensitive_post_parameters()
@require_http_methods(_SHOWN)
def invitation(request: HttpRequest, person: str, token: str) -> HttpResponse:
    """Let an invited person choose a password, and come in: by the second factor where there is one already."""
    staff = signup.invited_by(person, token)
    reseller = reseller_of(staff)
    if staff is None or reseller is None:
        raise Http404
    current = signup.current_terms()
    if current and TermsAcceptance.objects.filter(staff=staff, reseller=reseller, terms=current).exists():
        current = None
    form = PasswordForm(staff, request.POST or None)
    if current is None:
        del form.fields["accepted"]
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            form.save()
            if current:
                signup.accept(reseller=reseller, staff=staff, terms=current, address=address_of(request))
        sessions.end(staff)
        log.info("portal_invitation_taken", staff=staff.pk, reseller=reseller.pk)
        home = reverse("portal:home")
        return redirect(home if doors.pass_password(request, staff, home) else "portal:second_factor")
    context = {"title": _("Choose a password"), "form": form, "staff": staff, "terms": current}
    return render(request, "portal/invitation.html", context)
