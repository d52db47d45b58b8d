"""How someone becomes a reseller.

    ask              an application, the terms accepted with it; a mail asks to confirm the address
    confirm          the link of that mail was followed: now it waits for the operator
    approve, refuse  the operator's decision; a mail says so
    open_reseller    the reseller, its first person and their membership; a mail invites them to choose a password
    accept           keep that a person accepted the terms

Links are made by the caller (`link` takes what they carry), since only a request knows the site's address. Mails go
out once the transaction is committed. Of two who decide at once, one does.
"""

import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog
from django.conf import settings
from django.core.signing import BadSignature, TimestampSigner
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_decode, urlsafe_base64_encode
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from tenants.errors import ErrorCode, ProductError
from tenants.letters import Letter, send_letter
from tenants.models import (
    PlatformMembership,
    Reseller,
    ResellerApplication,
    ResellerTerms,
    StaffUser,
    TermsAcceptance,
)

log = structlog.get_logger(__name__)

# How long the link of the first mail is good.
CONFIRM_WITHIN: Final = timedelta(days=3)
_REASON_LENGTH: Final = 200  # of the column
State = ResellerApplication.State


def current_terms() -> ResellerTerms | None:
    """Return the terms that count now; None while there are none, and so no applications."""
    return ResellerTerms.objects.order_by("-published_at", "-pk").first()


def ask(*, terms: ResellerTerms, address: str, link: Callable[[str], str], **asked: str) -> ResellerApplication:
    """Keep an application and mail its confirmation.

    `asked` is name, slug, contact, email, phone, about and language, valid as the model's own fields are.
    """
    token = secrets.token_urlsafe(32)
    with transaction.atomic():
        made = ResellerApplication.objects.create(terms=terms, address=address, digest=_digest(token), **asked)
        _mail(made.email, made.language, partial(_please_confirm, name=made.name, link=link(token)))
    log.info("reseller_application", application=made.pk)
    return made


def find(token: str) -> ResellerApplication | None:
    """Return the application that a link belongs to, while it can be confirmed or once it was."""
    found = ResellerApplication.objects.filter(digest=_digest(token)).first()
    if found is None or (found.state == State.UNCONFIRMED and found.created_at < timezone.now() - CONFIRM_WITHIN):
        return None
    return found


def confirm(token: str) -> bool:
    """Confirm an application's address; False for a link that is wrong, too old, or was followed before."""
    fresh = ResellerApplication.objects.filter(
        digest=_digest(token), state=State.UNCONFIRMED, created_at__gte=timezone.now() - CONFIRM_WITHIN
    )
    changed = fresh.update(state=State.WAITING, confirmed_at=Now()) == 1
    if changed:
        log.info("reseller_application_confirmed")
    return changed


def approve(*, application_id: int, decided_by: StaffUser, link: Callable[[str, str], str]) -> bool:
    """Make the reseller that was asked for and invite its person; False if it was decided before.

    Raises ProductError INVALID "slug_taken".
    """
    with transaction.atomic():
        asked = ResellerApplication.objects.select_for_update().get(pk=application_id)
        if asked.state != State.WAITING:
            return False
        reseller, person = open_reseller(
            name=asked.name,
            slug=asked.slug,
            contact=asked.contact,
            email=asked.email,
            language=asked.language,
            link=link,
        )
        accept(reseller=reseller, staff=person, terms=asked.terms, address=asked.address, at=asked.created_at)
        ResellerApplication.objects.filter(pk=asked.pk).update(
            state=State.APPROVED, decided_by=decided_by, decided_at=Now(), reseller=reseller
        )
    log.info("reseller_application_approved", application=asked.pk, reseller=reseller.pk, staff=decided_by.pk)
    return True


def refuse(*, application_id: int, decided_by: StaffUser, reason: str) -> bool:
    """Refuse an application and mail why; False if it was decided before."""
    with transaction.atomic():
        waiting = ResellerApplication.objects.filter(pk=application_id, state=State.WAITING)
        decided = {"decided_by": decided_by, "decided_at": Now(), "reason": reason[:_REASON_LENGTH]}
        if waiting.update(state=State.REFUSED, **decided) != 1:
            return False
        asked = ResellerApplication.objects.get(pk=application_id)
        _mail(asked.email, asked.language, partial(_refused, name=asked.name, reason=asked.reason))
    log.info("reseller_application_refused", application=application_id, staff=decided_by.pk)
    return True


def open_reseller(  # noqa: PLR0913  what a reseller begins with
    *,
    name: str,
    slug: str,
    contact: str,
    email: str,
    language: str,
    link: Callable[[str, str], str],
    parent: Reseller | None = None,
) -> tuple[Reseller, StaffUser]:
    """Return a new reseller, below `parent` if given, and its first person, who is invited by mail.

    Raises ProductError INVALID "slug_taken", also for a slug that is somebody's user name: it becomes the person's.
    """
    try:
        with transaction.atomic():
            reseller = Reseller.objects.create(slug=slug, name=name, parent=parent, depth=2 if parent else 1)
            person = StaffUser(username=slug, email=email, first_name=contact[:150], language=language)
            person.set_unusable_password()
            person.save(force_insert=True)
    except IntegrityError:
        raise ProductError(ErrorCode.INVALID, _("This short name is taken."), type="slug_taken") from None
    PlatformMembership.objects.create(staff=person, role=PlatformMembership.Role.RESELLER, reseller=reseller)
    url = link(*invitation_of(person))
    _mail(email, language, partial(_invited, name=name, username=person.username, link=url))
    log.info("reseller_opened", reseller=reseller.pk, parent=parent.pk if parent else None)
    return reseller, person


def invitation_of(person: StaffUser) -> tuple[str, str]:
    """Return what a link to choose a password carries: good once, and for INVITATION_DAYS."""
    return urlsafe_base64_encode(force_bytes(person.pk)), _signer_of(person).sign(str(person.pk))


def invited_by(person: str, token: str) -> StaffUser | None:
    """Return whom an invitation is for, while it is good."""
    try:
        number = int(urlsafe_base64_decode(person))
    except ValueError:
        return None
    staff = StaffUser.objects.filter(pk=number, is_active=True).first() if number < 2**63 else None
    if staff is None:
        return None
    try:
        _signer_of(staff).unsign(token, max_age=timedelta(days=settings.INVITATION_DAYS))
    except BadSignature:
        return None
    return staff


def _signer_of(person: StaffUser) -> TimestampSigner:
    """Return what signs a person's invitations; a new password ends them."""
    return TimestampSigner(salt=f"tenants.signup.{person.pk}.{person.get_session_auth_hash()}")


def accept(
    *, reseller: Reseller, staff: StaffUser, terms: ResellerTerms, address: str, at: datetime | None = None
) -> TermsAcceptance:
    """Keep that a person accepted terms for a reseller, once."""
    kept, _new = TermsAcceptance.objects.get_or_create(
        reseller=reseller,
        staff=staff,
        terms=terms,
        defaults={"address": address, "accepted_at": at or timezone.now()},
    )
    return kept


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _mail(address: str, language: str, write: Callable[[], Letter]) -> None:
    transaction.on_commit(partial(send_letter, [address], language=language, write=write))


def _please_confirm(*, name: str, link: str) -> Letter:
    return Letter(
        gettext("Please confirm your application"),
        gettext(
            "Someone, you we hope, asked for %(name)s to become a reseller. Please confirm it within three days:\n\n"
            "%(link)s\n\nIf it was not you, there is nothing to do."
        )
        % {"name": name, "link": link},
    )


def _invited(*, name: str, username: str, link: str) -> Letter:
    return Letter(
        gettext("Welcome: %(name)s is a reseller now") % {"name": name},
        gettext(
            "The resellers' portal is open for %(name)s. Your user name is %(username)s. "
            "Please choose a password within %(days)d days:\n\n%(link)s"
        )
        % {"name": name, "username": username, "days": settings.INVITATION_DAYS, "link": link},
    )


def _refused(*, name: str, reason: str) -> Letter:
    return Letter(
        gettext("About your application"),
        gettext("We are sorry: %(name)s cannot become a reseller now.\n\n%(reason)s")
        % {"name": name, "reason": reason},
    )
