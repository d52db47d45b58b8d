"""Inviting staff: a one-time link that makes whoever opens it a member of one tenant; mailed, or passed on by hand.

invite              make the link; with an address mail it, and end the tenant's earlier open links to the address
open_invitation     the invitation that a link's token stands for, while it is good
join, join_as_new   accept it, with an account that there is or a new one
revoke              end a link that nobody has used

Each enters the tenant's scope. A token is in the link alone; the database has its SHA-256.
"""

import secrets
from datetime import timedelta
from functools import partial
from typing import Final

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from tenants import letters, scope, throttle
from tenants.errors import ErrorCode, ProductError
from tenants.login import digest_of
from tenants.models import Domain, Membership, StaffInvitation, StaffUser, Tenant

_DAY_SECONDS: Final = 24 * 60 * 60
_PER_DAY: Final = 100


def invite(*, tenant: Tenant, role: str, by: StaffUser | None, email: str = "", origin: str = "") -> str:
    """Return a new link to a role in `tenant`, good once and for INVITATION_DAYS; also mailed to `email` if given.

    `origin` is where the tenant's admin is reached, such as `https://chat.example.com`; by default its first domain.
    `by` is None where the product itself invites.

    Raises ProductError INVALID "staff_email_invalid" or "staff_role_unknown", or QUOTA "too_many_tries".
    """
    email, days = _address(email) if email else "", settings.INVITATION_DAYS
    if role not in Membership.Role.values:
        raise ProductError(ErrorCode.INVALID, _("There is no such role."), type="staff_role_unknown", scope="role")
    throttle.count(what="staff_invitation", who=tenant.slug, limit=_PER_DAY, seconds=_DAY_SECONDS)
    token = secrets.token_urlsafe(32)
    with scope.tenant(tenant.pk), transaction.atomic():
        if email:
            _open().filter(tenant=tenant, email=email).update(revoked_at=timezone.now())
        StaffInvitation.objects.create(
            tenant=tenant,
            email=email,
            role=role,
            digest=digest_of(token),
            invited_by=by,
            expires_at=timezone.now() + timedelta(days=days),
        )
        link = f"{origin or _origin_of(tenant)}{reverse('tenant_admin:join', args=[token])}"
        if email:
            write = partial(_letter, name=tenant.name, link=link, role=role, days=days)
            transaction.on_commit(
                partial(letters.send_letter, [email], language=tenant.language, write=write, tenant_id=tenant.pk)
            )
    return link


def open_invitation(*, tenant: Tenant, token: str) -> StaffInvitation:
    """Return what a token stands for; raise ProductError NOT_FOUND "staff_invitation_not_found" where it is no good."""
    with scope.tenant(tenant.pk):
        found = _open().filter(tenant=tenant, digest=digest_of(token)).first()
    if found is None:
        raise _not_found()
    return found


def join(*, tenant: Tenant, token: str, staff: StaffUser) -> Membership:
    """Make `staff` a member by an invitation, once; a member keeps the role that they have.

    Raises ProductError NOT_FOUND "staff_invitation_not_found".
    """
    with scope.tenant(tenant.pk), transaction.atomic():
        invitation = open_invitation(tenant=tenant, token=token)
        ended = {"accepted_at": timezone.now(), "accepted_by": staff}
        if _open().filter(tenant=tenant, pk=invitation.pk).update(**ended) != 1:
            raise _not_found()
        membership, _made = Membership.objects.get_or_create(
            tenant=tenant, staff=staff, defaults={"role": invitation.role}
        )
    return membership


def join_as_new(*, tenant: Tenant, token: str, password: str, email: str = "") -> StaffUser:
    """Return a new staff user who is a member by an invitation, named by its address; `email` where it has none.

    Raises ProductError INVALID "staff_email_invalid", "staff_name_taken" or "weak_password", NOT_FOUND
    "staff_invitation_not_found".
    """
    invitation = open_invitation(tenant=tenant, token=token)
    address = invitation.email or _address(email)
    staff = StaffUser(username=address, email=address)
    try:
        validate_password(password, staff)
    except ValidationError as weak:
        raise ProductError(ErrorCode.INVALID, " ".join(weak.messages), type="weak_password", scope="password") from None
    if StaffUser.objects.filter(username__iexact=address).exists():
        raise _taken()
    staff.set_password(password)
    try:
        with transaction.atomic():
            staff.save(force_insert=True)
            join(tenant=tenant, token=token, staff=staff)
    except IntegrityError:
        raise _taken() from None
    return staff


def latest_open() -> StaffInvitation | None:
    """Return the open invitation that is good longest; in the tenant's scope."""
    return _open().order_by("-expires_at").first()


def revoke(*, tenant_id: int, invitation_id: int) -> bool:
    """End a link; False if it had ended."""
    with scope.tenant(tenant_id):
        rows = _open().filter(tenant_id=tenant_id, pk=invitation_id)
        return rows.update(revoked_at=timezone.now()) == 1


def _open() -> "scope.TenantQuerySet[StaffInvitation]":
    return StaffInvitation.objects.filter(  # type: ignore[return-value]  # the manager's own kind
        accepted_at=None, revoked_at=None, expires_at__gt=timezone.now()
    )


def _address(email: str) -> str:
    """Return an address as it is compared: in lower case."""
    email = email.strip().lower()
    try:
        validate_email(email)
    except ValidationError:
        raise ProductError(
            ErrorCode.INVALID, _("An e-mail address is wanted."), type="staff_email_invalid", scope="email"
        ) from None
    return email


def _origin_of(tenant: Tenant) -> str:
    host = Domain.objects.filter(tenant=tenant).order_by("id").values_list("host", flat=True).first() or ""
    return f"{'https' if settings.HTTPS_ONLY else 'http'}://{host}"


def _letter(*, name: str, link: str, role: str, days: int) -> letters.Letter:
    facts = {"name": name, "role": Membership.Role(role).label, "link": link, "days": days}
    return letters.Letter(
        gettext("%(name)s invites you to its admin") % facts,
        gettext(
            "You are invited to work for %(name)s as %(role)s. Open this address within %(days)d days; "
            "it is good once:\n\n%(link)s\n\nIf you expected no invitation, delete this mail."
        )
        % facts,
    )


def _not_found() -> ProductError:
    return ProductError(
        ErrorCode.NOT_FOUND,
        _("This invitation was used, was withdrawn, or has expired. Please ask for a new one."),
        type="staff_invitation_not_found",
        scope="invitation",
    )


def wrong_account() -> ProductError:
    """Return the refusal of a name and a password that do not fit."""
    return ProductError(
        ErrorCode.INVALID, _("The name or the password is wrong."), type="wrong_password", scope="staff"
    )


def _taken() -> ProductError:
    return ProductError(
        ErrorCode.INVALID,
        _("There is an account with this address already. Please log in with it."),
        type="staff_name_taken",
        scope="email",
    )
