"""Users' pictures of themselves: one each, drawn anew as a square, at an address that nobody can guess.

keep          take a picture in the place of the one before
remove        nobody has it any more
of            a user's
at            what stands at an address
with_address  a user, who is told where theirs is
data_url      a picture as an address that holds it

All of it in the tenant's scope. Why an address and no token: docs/adr, "An avatar lies at an address that nobody
guesses".
"""

import base64
import re
import secrets
from typing import Final

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from tenants import pictures
from tenants.errors import ErrorCode, ProductError
from tenants.login import login_required
from tenants.models import Avatar, EndUser

MAX_BYTES: Final = 8 * 1024 * 1024
EDGE: Final = 256
# Below the path of the API's router.
PATH: Final = "/api/auth/avatars/"

# A square of noise has less than this at the best quality.
_FRAME: Final = pictures.Frame(edge=EDGE, most_bytes=128 * 1024)
_FORMATS: Final = ("JPEG", "PNG", "WEBP")
# Nobody tries 2 to the 128th addresses.
_TOKEN_BYTES: Final = 16
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{22}")


def keep(*, user: EndUser, data: bytes) -> None:
    """Keep a picture, in the place of the one before, at an address of its own.

    Raises ProductError 10001 "picture_too_large", "picture_not_taken"; LOGIN where the user has gone meanwhile.
    """
    require_small(len(data))
    try:
        drawn = pictures.redraw(data, frame=_FRAME, formats=_FORMATS)
    except pictures.TooLargeError as refused:
        raise _too_large(refused.measure, limit=refused.limit) from None
    except pictures.NoPictureError:
        raise _not_taken() from None
    with transaction.atomic():
        # A deletion of the account waits for this row, or has erased everything before.
        if EndUser.objects.select_for_update(no_key=True).filter(pk=user.pk, deleted_at=None).first() is None:
            raise login_required()
        kept = {"token": secrets.token_urlsafe(_TOKEN_BYTES), "data": drawn.data, "created_at": timezone.now()}
        Avatar.objects.update_or_create(tenant_id=user.tenant_id, user=user, defaults=kept)


def require_small(size: int) -> None:
    """Refuse a file of so many bytes if they are too many."""
    if size > MAX_BYTES:
        raise _too_large("bytes", limit=MAX_BYTES)


def remove(user: EndUser) -> bool:
    """Erase a user's picture; False if there was none."""
    return bool(Avatar.objects.filter(tenant_id=user.tenant_id, user=user).delete()[0])


def of(user: EndUser) -> Avatar | None:
    """Return a user's picture."""
    return Avatar.objects.filter(tenant_id=user.tenant_id, user=user).first()


def at(token: str) -> bytes:
    """Return the picture at an address; raise ProductError 404 "avatar_not_found"."""
    rows = Avatar.objects.filter(token=token) if _TOKEN.fullmatch(token) else Avatar.objects.none()
    data = rows.values_list("data", flat=True).first()
    if data is None:
        raise ProductError(
            ErrorCode.NOT_FOUND, _("There is no picture at this address."), type="avatar_not_found", scope="avatar"
        )
    return bytes(data)


def with_address(user: EndUser) -> EndUser:
    """Give a user the address of their picture as `avatar_url`: a path, for they may know the host by any name."""
    token = Avatar.objects.filter(tenant_id=user.tenant_id, user=user).values_list("token", flat=True).first()
    user.avatar_url = f"{PATH}{token}" if token else None  # type: ignore[attr-defined]
    return user


def data_url(avatar: Avatar) -> str:
    """Return a picture as an address that holds it."""
    return f"data:{pictures.MEDIA_TYPE};base64,{base64.b64encode(avatar.data).decode()}"


def _not_taken() -> ProductError:
    """10001: no picture that can be read here."""
    return ProductError(
        ErrorCode.INVALID,
        _("This picture cannot be read here. Please choose another one: JPEG, PNG or WebP."),
        type="picture_not_taken",
        scope="file",
        action="choose_file",
    )


def _too_large(measure: str, *, limit: int) -> ProductError:
    """10001: the picture has more than `limit` of a `measure`: "bytes" or "pixels"."""
    return ProductError(
        ErrorCode.INVALID,
        _("This picture is too large. Please choose a smaller one."),
        type="picture_too_large",
        scope="file",
        action="choose_file",
        measure=measure,
        limit=limit,
    )
