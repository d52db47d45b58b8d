"""The pages around an admin's log-in: an invitation, the second factor, a forgotten password, and one's own security.

They belong to a site, answer on its hosts only, and show nothing of it to whoever is not let in. The resellers' portal
has pages of its own (tenants/portal/people.py), which stand on the same functions:

    count_guess                      before a password is looked at
    pass_password, pass_second       log in, by one factor or by both
    mail_resets, whose_link, renew   a forgotten password
    act                              one's own second factor and sessions
"""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
from django import forms
from django.conf import settings
from django.contrib.auth import authenticate, login
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.tokens import default_token_generator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.encoding import force_bytes
from django.utils.http import url_has_allowed_host_and_scheme, urlsafe_base64_decode, urlsafe_base64_encode
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.sites import UnfoldAdminSite
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from tenants import changes, invitations, letters, second_factor, sessions, throttle
from tenants.errors import ProductError
from tenants.models import StaffInvitation, StaffUser, Tenant

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

log = structlog.get_logger(__name__)

MAX_PASSWORD: Final = 128
_QUARTER: Final = 15 * 60
# For so long the password that was right is enough to be asked for the second factor.
_HALF_SECONDS: Final = 10 * 60
_HALF: Final = "half_logged_in"
_BACKEND: Final = "django.contrib.auth.backends.ModelBackend"


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


class NewAccountForm(NewPasswordForm):
    """A new account's name, which is an address, and its password."""

    email = forms.EmailField(
        label=_("E-mail"), widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "username", "type": "email"})
    )
    field_order = ("email", "password", "again")


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
    as_new = NewPasswordForm if invitation.email else NewAccountForm
    form = (AccountForm if has_account else as_new)(request.POST or None)
    if form.is_valid():
        try:
            staff = _with_account(request, form, token) if has_account else _as_new(request, form, token)
        except ProductError as refused:
            form.add_error(None, str(refused.msg))
        else:
            log.info("staff_joined", staff=staff.pk, tenant_id=tenant.pk, role=invitation.role)
            return enter(site, request, staff)
    other = (request.path, _("I am new here")) if has_account else ("?account", _("I have an account already"))
    return _ask(site, request, invitation, form, links=[other])


def _ask(
    site: UnfoldAdminSite, request: HttpRequest, invitation: StaffInvitation, form: forms.Form, **context: Any
) -> HttpResponse:
    facts = {"role": invitation.get_role_display(), "email": invitation.email}
    said = _("You are invited as %(role)s. Your user name is %(email)s.") % facts
    if isinstance(form, NewAccountForm):
        said = _("You are invited as %(role)s. Your e-mail becomes your user name.") % facts
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
    given = form.cleaned_data
    return invitations.join_as_new(tenant=tenant, token=token, password=given["password"], email=given.get("email", ""))


def _with_account(request: HttpRequest, form: forms.Form, token: str) -> StaffUser:
    count_guess(request, form.cleaned_data["username"])
    staff = authenticate(request, **form.cleaned_data)
    if not isinstance(staff, StaffUser):
        raise invitations.wrong_account()
    tenant: Tenant = request.tenant  # type: ignore[attr-defined]
    invitations.join(tenant=tenant, token=token, staff=staff)
    return staff


def count_guess(request: HttpRequest, username: str) -> None:
    """Count a try to log in, of an account on any host and from an address; ProductError QUOTA beyond what is allowed.

    Many people share an address, behind an office's or a carrier's; few share an account.
    """
    limit = settings.STAFF_LOGIN_TRIES
    throttle.count(what="staff_login", who=username.strip().lower(), limit=limit, seconds=_QUARTER)
    throttle.count(what="staff_login", who=_address(request), limit=limit * 10, seconds=_QUARTER)


def when_again(refused: ProductError) -> str:
    """Return a refusal in the person's language, with the time of day from which they may try again."""
    if refused.reset_at is None:
        return str(refused.msg)
    moment = timezone.localtime(refused.reset_at).strftime("%H:%M:%S")
    again = _("You can try again at %(moment)s.") % {"moment": moment}
    return f"{refused.msg} {again}"


def enter(site: UnfoldAdminSite, request: HttpRequest, staff: StaffUser, where: str = "") -> HttpResponse:
    """Log in whose password was right, or ask them for the second factor first."""
    home = reverse("admin:index", current_app=site.name)
    here = {request.get_host()}
    if not url_has_allowed_host_and_scheme(where, allowed_hosts=here, require_https=request.is_secure()):
        where = home
    if pass_password(request, staff, where):
        return HttpResponseRedirect(where)
    return HttpResponseRedirect(reverse("admin:second_factor", current_app=site.name))


def pass_password(request: HttpRequest, staff: StaffUser, where: str) -> bool:
    """Log in whose password was right; False where the second factor is asked for first, before going on to `where`."""
    if not second_factor.is_on(staff):
        login(request, staff, backend=_BACKEND)
        return True
    request.session.flush()
    request.session[_HALF] = [staff.pk, staff.get_session_auth_hash(), int(time.time()), where]
    return False


def half_way(request: HttpRequest) -> tuple[StaffUser, str] | None:
    """Return whose password was right just now and where they go on; None for nobody's, or too long ago."""
    staff_id, digest, at, where = request.session.get(_HALF) or (0, "", 0, "")
    staff = StaffUser.objects.filter(pk=staff_id, is_active=True).first()
    if staff is None or staff.get_session_auth_hash() != digest or time.time() - at > _HALF_SECONDS:
        return None
    return staff, where


def pass_second(request: HttpRequest, staff: StaffUser, code: str) -> None:
    """Log in who is half way by a code; raises ProductError as `second_factor.check`, and counts addresses, too."""
    limit = settings.STAFF_LOGIN_TRIES * 10
    throttle.count(what="staff_code", who=_address(request), limit=limit, seconds=_QUARTER)
    second_factor.check(staff, code)
    login(request, staff, backend=_BACKEND)
    request.session[VERIFIED] = True


class CodeForm(forms.Form):
    """A code of the app, or a recovery code."""

    code = forms.CharField(
        label=_("Code"),
        max_length=20,
        widget=UnfoldAdminTextInputWidget(
            attrs={"autocomplete": "one-time-code", "inputmode": "numeric", "autofocus": True}
        ),
    )


def ask_second_factor(site: UnfoldAdminSite, request: HttpRequest) -> HttpResponse:
    """Ask for the second factor; without a right password just before, go back to the log-in."""
    found = half_way(request)
    if found is None:
        return HttpResponseRedirect(reverse("admin:login", current_app=site.name))
    staff, where = found
    form = CodeForm(request.POST or None)
    if form.is_valid():
        try:
            pass_second(request, staff, form.cleaned_data["code"])
        except ProductError as refused:
            form.add_error("code", when_again(refused))
        else:
            return HttpResponseRedirect(where)
    said = _("Type the code that your authenticator app shows, or one of your recovery codes.")
    links = [(reverse("admin:login", current_app=site.name), _("Log in as somebody else"))]
    return show(site, request, title=_("Second factor"), form=form, said=said, button=_("Log in"), links=links)


# Set in a session that the second factor opened.
VERIFIED: Final = "second_factor"


class ForgottenForm(forms.Form):
    """Whose password was forgotten."""

    email = forms.EmailField(
        label=_("E-mail"), widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "email", "type": "email"})
    )


def forgot(site: UnfoldAdminSite, request: HttpRequest, admits: Any) -> HttpResponse:
    """Mail a link that sets a new password; the answer is the same whoever there is."""
    form = ForgottenForm(request.POST or None)
    title = _("Forgotten password")
    if form.is_valid():
        try:
            mail_resets(
                request,
                form.cleaned_data["email"],
                admits=partial(admits, request),
                link=lambda *keys: reverse("admin:password_reset_link", args=keys, current_app=site.name),
            )
        except ProductError as refused:
            form.add_error(None, when_again(refused))
        else:
            said = _("If there is an account with this address here, a mail is on its way to it.")
            return show(site, request, title=title, said=said, links=[_to_login(site)])
    said = _("You will be mailed a link that sets a new password.")
    return show(site, request, title=title, form=form, said=said, button=_("Send"), links=[_to_login(site)])


def mail_resets(
    request: HttpRequest, email: str, *, admits: Callable[[StaffUser], bool], link: Callable[..., str]
) -> None:
    """Mail to those of an address whom `admits` names a link that sets a new password; ProductError QUOTA."""
    email = email.strip()
    for who, limit in ((email.lower(), 5), (_address(request), 50)):
        throttle.count(what="staff_reset", who=who, limit=limit, seconds=60 * 60)
    for staff in StaffUser.objects.filter(email__iexact=email, is_active=True)[:5]:
        if admits(staff):
            keys = urlsafe_base64_encode(force_bytes(staff.pk)), default_token_generator.make_token(staff)
            _mail_reset(request, staff, request.build_absolute_uri(link(*keys)))


def reset(site: UnfoldAdminSite, request: HttpRequest, uid: str, token: str, admits: Any) -> HttpResponse:
    """Set a new password by a mailed link; every session ends, and the second factor stays."""
    staff = whose_link(uid, token)
    title = _("New password")
    if staff is None or not admits(request, staff):
        said = _("This link was used or has expired. Please ask for a new one.")
        page = show(site, request, title=title, said=said, links=[_to_login(site)])
        page.status_code = 404
        return page
    form = NewPasswordForm(request.POST or None)
    if form.is_valid():
        try:
            renew(staff, form.cleaned_data["password"])
        except forms.ValidationError as weak:
            form.add_error("password", weak)
        else:
            said = _("Your password is set, and every session has ended. Please log in.")
            return show(site, request, title=title, said=said, links=[_to_login(site)])
    return show(site, request, title=title, form=form, button=_("Save"))


def renew(staff: StaffUser, password: str) -> None:
    """Set a new password, and end every session; raise ValidationError for a weak one."""
    validate_password(password, staff)
    staff.set_password(password)
    staff.save(update_fields=["password"])
    sessions.end(staff)
    log.info("staff_password_reset", staff=staff.pk)


def whose_link(uid: str, token: str) -> StaffUser | None:
    """Return whose new password a mailed link sets, while it is good."""
    try:
        number = int(urlsafe_base64_decode(uid))
    except ValueError:
        return None
    staff = StaffUser.objects.filter(pk=number, is_active=True).first() if number < 2**63 else None
    return staff if staff and default_token_generator.check_token(staff, token) else None


def _mail_reset(request: HttpRequest, staff: StaffUser, link: str) -> None:
    tenant: Tenant | None = getattr(request, "tenant", None)
    language = staff.language or (tenant.language if tenant else "")
    write = partial(_reset_letter, name=staff.get_username(), link=link)
    letters.send_letter([staff.email], language=language, write=write, staff=staff.pk)


def _reset_letter(*, name: str, link: str) -> letters.Letter:
    hours = settings.PASSWORD_RESET_TIMEOUT // 3600
    return letters.Letter(
        gettext("A new password for %(name)s") % {"name": name},
        gettext(
            "Somebody asked for a new password for %(name)s. Open this address within %(hours)d hours to set one:"
            "\n\n%(link)s\n\nIf it was not you, delete this mail: nothing has changed."
        )
        % {"name": name, "link": link, "hours": hours},
    )


def _to_login(site: UnfoldAdminSite) -> tuple[str, Any]:
    return reverse("admin:login", current_app=site.name), _("Log in")


def _address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))


def security(site: UnfoldAdminSite, request: HttpRequest, *, must: bool) -> HttpResponse:
    """Show one's own second factor and sessions, and change them; `must` says that nothing else opens without one."""
    staff: Any = request.user
    shown: dict[str, Any] = {}
    form = CodeForm(request.POST if "code" in request.POST else None)
    if request.method == "POST":
        try:
            shown = act(request, staff, form, must=must)
        except ProductError as refused:
            form.add_error("code", when_again(refused))
    around = site.each_context(request)
    context = {
        **around,
        **standing(request, staff, must=must, issuer=str(around["site_title"])),
        "title": _("Security"),
        "form": form,
        **shown,
    }
    page = TemplateResponse(request, "doors/security.html", context)
    page["Cache-Control"] = "no-store"
    return page


def standing(request: HttpRequest, staff: StaffUser, *, must: bool, issuer: str) -> dict[str, Any]:
    """Return how a person's second factor and sessions stand, as both pages about it show it."""
    is_on = second_factor.is_on(staff)
    factor = None if is_on else second_factor.begin(staff)
    return {
        "is_on": is_on,
        "must": must and not is_on,
        "key": factor.key if factor else "",
        "picture": second_factor.picture(factor, issuer=issuer) if factor else "",
        "sessions": sessions.open_ones(staff),
        "here": sessions.number_of(request),
    }


def act(request: HttpRequest, staff: StaffUser, form: forms.Form, *, must: bool) -> dict[str, Any]:
    """Do what a button of the page says, with the form's code; return what is shown this once. Raises ProductError."""
    match request.POST.get("act", ""):
        case "end" if request.POST.get("number", "").isdecimal():
            sessions.end(staff, number=int(request.POST["number"]))
        case "end_others":
            sessions.end(staff, but=sessions.number_of(request))
        case "confirm" if form.is_valid():
            codes = second_factor.confirm(staff, form.cleaned_data["code"])
            request.session[VERIFIED] = True
            # They were opened without it.
            sessions.end(staff, but=sessions.number_of(request))
            _note(request, staff, gettext("The second factor was turned on."))
            return {"codes": codes}
        case "codes" if form.is_valid():
            second_factor.check(staff, form.cleaned_data["code"])
            _note(request, staff, gettext("New recovery codes were made."))
            return {"codes": second_factor.new_recovery_codes(staff)}
        case "off" if form.is_valid() and not must:
            second_factor.check(staff, form.cleaned_data["code"])
            second_factor.turn_off(staff)
            _note(request, staff, gettext("The second factor was turned off."))
    return {}


def _note(request: HttpRequest, staff: StaffUser, said: str) -> None:
    log.info("staff_security", staff=staff.pk, what=said)
    changes.record(request=request, row=staff, action="changed", changes={}, note=said)
