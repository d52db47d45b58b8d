"""The JSON API of attachments: what a user sends along with a question is uploaded first, then named by its id."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from ninja import File, Form, Router
from ninja.files import UploadedFile

from chat import attachments, refusals, uploads
from chat.attachments import AttachmentOut
from chat.findings import parse_id
from tenants import throttle
from tenants.api import DAY_SECONDS, Envelope, counted_as, ok, signed_in, user_of

router = Router(tags=["chat"], auth=signed_in)

MINUTE_SECONDS = 60


@router.post("/attachments", response=Envelope[AttachmentOut])
def attach(request: HttpRequest, file: File[UploadedFile], name: Form[str] = "") -> Any:
    """Keep a picture (JPEG, PNG, WebP, GIF) or a text file until it is sent, for a day.

    `name` is for clients that cannot name the file in the form itself: a mini-program's is that of its temporary copy.

    A picture is drawn anew, smaller where it is large, and without what else was in its file. A text is UTF-8, UTF-16
    with its mark, or GB18030.
    """
    user = user_of(request)
    who = counted_as(request)
    per_day = attachments.allowance(settings.ATTACHMENTS_PER_DAY, user)
    for limit, seconds in ((settings.ATTACHMENTS_PER_MINUTE, MINUTE_SECONDS), (per_day, DAY_SECONDS)):
        throttle.count(what="attachments", who=f"{who} {seconds}", limit=limit, seconds=seconds)
    if (file.size or 0) > uploads.MAX_BYTES:
        raise refusals.attachment_too_large("bytes", limit=uploads.MAX_BYTES)
    return ok(attachments.keep(user=user, name=name or file.name or "", data=file.read()))


@router.get("/attachments/{attachment_id}", openapi_extra=attachments.download("image/jpeg", "text/plain"))
def attachment(request: HttpRequest, attachment_id: str) -> HttpResponse:
    """Return a picture or a text of the user's own, as it is kept."""
    found = attachments.find(user_id=user_of(request).pk, attachment_id=parse_id(attachment_id))
    return attachments.served(found)


@router.post("/attachments/{attachment_id}/delete", response=Envelope[None])
def delete_attachment(request: HttpRequest, attachment_id: str) -> Any:
    """Throw away what was uploaded and is not to be sent; what was sent goes with its conversation."""
    attachments.drop(user_id=user_of(request).pk, attachment_id=parse_id(attachment_id))
    return ok()
