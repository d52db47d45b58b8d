"""The JSON API of one's avatar: uploaded, removed, and shown at an address that an `<img>` can load."""

from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from ninja import File, Router
from ninja.files import UploadedFile

from tenants import avatars, pictures, throttle
from tenants.api import DAY_SECONDS, Envelope, UserOut, counted_as, ok, signed_in, user_of
from tenants.models import EndUser

router = Router(tags=["account"], auth=signed_in)

# Of a form around its file.
_FORM_BYTES: Final = 16 * 1024
_PICTURE: Final = {"schema": {"type": "string", "format": "binary"}}


def _small_and_signed_in(request: HttpRequest) -> EndUser:
    """Refuse a body that says that it is too large before its form is read; then ask whose it is."""
    told = request.headers.get("Content-Length", "")
    avatars.require_small(int(told) - _FORM_BYTES if told.isdecimal() else 0)
    return signed_in(request)


@router.post("/avatar", response=Envelope[UserOut], auth=_small_and_signed_in)
def change_avatar(request: HttpRequest, file: File[UploadedFile]) -> Any:
    """Take a picture (JPEG, PNG, WebP) as one's avatar, in the place of the one before.

    Its middle is drawn anew as a square of 256 pixels, without what else was in its file.
    """
    user = user_of(request)
    throttle.count(what="avatars", who=counted_as(request), limit=settings.AVATARS_PER_DAY, seconds=DAY_SECONDS)
    avatars.require_small(file.size or 0)
    avatars.keep(user=user, data=file.read())
    return ok(avatars.with_address(user))


@router.post("/avatar/delete", response=Envelope[UserOut])
def delete_avatar(request: HttpRequest) -> Any:
    """Remove one's avatar, if there is one; its address leads nowhere from then on."""
    user = user_of(request)
    avatars.remove(user)
    return ok(avatars.with_address(user))


@router.get(
    "/avatars/{avatar}",
    auth=None,
    openapi_extra={"responses": {200: {"description": "OK", "content": {pictures.MEDIA_TYPE: _PICTURE}}}},
)
def show_avatar(request: HttpRequest, avatar: str) -> HttpResponse:  # noqa: ARG001  # ninja's first
    """Return the picture at an address that a user was told (`avatar_url`): an `<img>` brings no token."""
    response = HttpResponse(avatars.at(avatar), content_type=pictures.MEDIA_TYPE)
    response["Content-Disposition"] = "inline"
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response["X-Content-Type-Options"] = "nosniff"
    # Another picture has another address. No cache that is shared keeps one after it was removed here.
    response["Cache-Control"] = "private, max-age=31536000, immutable"
    return response
