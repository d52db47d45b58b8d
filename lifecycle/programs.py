"""Tokens by which programs of resellers and of the operator use the API of openings; stored as digests."""

import re
import secrets
from typing import Final

from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from lifecycle.models import ResellerToken
from tenants.errors import ErrorCode, ProductError
from tenants.login import digest_of
from tenants.models import Reseller

PREFIX: Final = "bny_rs_"
_TOKEN: Final = re.compile(r"bny_rs_[A-Za-z0-9_-]{43}\Z")


def make_token(*, reseller: Reseller | None, name: str, actor: str) -> tuple[ResellerToken, str]:
    """Return a new token, and its secret, which is shown this once. Without a reseller it is the operator's."""
    secret = PREFIX + secrets.token_urlsafe(32)
    made = ResellerToken.objects.create(
        reseller=reseller, name=name, digest=digest_of(secret), last4=secret[-4:], created_by=actor
    )
    return made, secret


def revoke_token(token: ResellerToken) -> bool:
    """Let a token open nothing from now on; False if it did not anyway."""
    return ResellerToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=Now()) == 1


def token_for(secret: str | None) -> ResellerToken:
    """Return the token that a secret opens; raise ProductError LOGIN "login_required"."""
    known = secret is not None and _TOKEN.match(secret)
    rows = ResellerToken.objects.filter(digest=digest_of(secret or ""), revoked_at=None) if known else None
    found = rows.select_related("reseller").first() if rows is not None else None
    if found is None:
        raise ProductError(ErrorCode.LOGIN, _("Please log in first."), type="login_required", action="login")
    ResellerToken.objects.filter(pk=found.pk).update(last_used_at=Now())
    return found
