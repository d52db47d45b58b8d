"""Links by which a tenant's staff come in for the first time: good once, until they expire, stored as a digest.

invite     a new link; the secret in it is shown this once
look_up    whose link it is, and as what it invites
accept     make the member: somebody new, or somebody who is logged in already
"""

import re
import secrets
from datetime import timedelta
from typing import Final, NamedTuple

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from billing import notices
from lifecycle.addresses import address_of, main_host
from lifecycle.models import StaffInvitation
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.letters import Letter
from tenants.login import digest_of
from tenants.models import Membership, StaffUser, Tenant

# Begins as every token of ours does, so that no log line shows it (saas.logging).
PREFIX: Final = "bny_inv_"
_SECRET: Final = re.compile(r"bny_inv_[A-Za-z0-9_-]{43}\Z")


class Invited(NamedTuple):
    """A new invitation, and its link, which nobody can read again."""

    invitation: StaffInvitation
    url: str


def invite(*, tenant: Tenant, role: str, actor: str, email: str = "") -> Invited:
    """Make a link that lets one person in as staff of the tenant; with an address it is mailed after the commit."""
    secret = PREFIX + secrets.token_urlsafe(32)
    url = f"{address_of(main_host(tenant.pk))}/join/{secret}/"
    with scope.tenant(tenant.pk):
        made = StaffInvitation.objects.create(
            tenant=tenant,
            role=role,
            email=email,
            digest=digest_of(secret),
            created_by=actor,
            expires_at=timezone.now() + timedelta(days=settings.INVITATION_DAYS),
        )
    if email:
        transaction.on_commit(lambda: _mail(tenant, made, url))
    return Invited(made, url)


def revoke(*, invitation: StaffInvitation) -> bool:
    """Let a link open nothing any more; False if it does not anyway. In the tenant's scope, or the platform's."""
    rows = StaffInvitation.objects.filter(pk=invitation.pk, used_at=None, revoked_at=None)
    return rows.update(revoked_at=Now()) == 1


def look_up(*, tenant_id: int, secret: str) -> StaffInvitation:
    """Return an open invitation of the tenant; raise ProductError NOT_FOUND "invitation_not_found"."""
    with scope.tenant(tenant_id):
        found = StaffInvitation.objects.filter(digest=digest_of(secret)).first() if _SECRET.match(secret) else None
    if found is None or not found.is_open:
        raise ProductError(
            ErrorCode.NOT_FOUND,
            _("This invitation is used up, expired or not ours. Please ask for a new one."),
            type="invitation_not_found",
        )
    return found


def accept_as_new(*, tenant_id: int, secret: str, username: str, password: str) -> StaffUser:
    """Make a staff user who is a member of the tenant; raise ProductError.

    INVALID "username_taken" or "password_unfit"; NOT_FOUND as `look_up`. All or nothing: a link that was not taken can
    be tried again.
    """
    with scope.tenant(tenant_id), transaction.atomic():
        invitation = look_up(tenant_id=tenant_id, secret=secret)
        staff = StaffUser(username=username, email=invitation.email)
        try:
            staff.username_validator(username)
            validate_password(password, staff)
        except ValidationError as unfit:
            raise ProductError(ErrorCode.INVALID, " ".join(unfit.messages), type="password_unfit") from None
        staff.set_password(password)
        try:
            with transaction.atomic():
                staff.save(force_insert=True)
        except IntegrityError:
            raise ProductError(
                ErrorCode.INVALID, _("This name is taken. Please choose another."), type="username_taken"
            ) from None
        _take(invitation, staff)
    return staff


def accept_as(*, tenant_id: int, secret: str, staff: StaffUser) -> None:
    """Make somebody who has a log-in a member too; a member keeps their role. Raises as `look_up`."""
    with scope.tenant(tenant_id), transaction.atomic():
        _take(look_up(tenant_id=tenant_id, secret=secret), staff)


def _take(invitation: StaffInvitation, staff: StaffUser) -> None:
    """Use an invitation up, once, whoever comes at the same time."""
    open_one = StaffInvitation.objects.filter(
        pk=invitation.pk, used_at=None, revoked_at=None, expires_at__gt=timezone.now()
    )
    if open_one.update(used_at=Now(), used_by=staff) != 1:
        raise ProductError(
            ErrorCode.NOT_FOUND,
            _("This invitation is used up, expired or not ours. Please ask for a new one."),
            type="invitation_not_found",
        )
    Membership.objects.get_or_create(tenant_id=invitation.tenant_id, staff=staff, defaults={"role": invitation.role})


def _mail(tenant: Tenant, invitation: StaffInvitation, url: str) -> None:
    def write() -> Letter:
        return Letter(
            gettext("Your log-in at %(name)s") % {"name": tenant.name},
            gettext(
                "You are invited to look after “%(name)s”. Choose a name and a password here; the link works once, "
                "until %(until)s:\n\n%(url)s"
            )
            % {"name": tenant.name, "until": f"{timezone.localtime(invitation.expires_at):%Y-%m-%d %H:%M}", "url": url},
        )

    notices.write_to(address=invitation.email, language=tenant.language, write=write, invitation=invitation.pk)
