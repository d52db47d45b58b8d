"""What is attached to questions: kept when it comes, found for a question or a history, erased.

keep          what came, until it is sent
find_for      what a question names
claim         note with which question it is sent
earlier       what stands before it in a conversation
with_pictures a prompt whose pictures are named, with the pictures in it
listed        messages with what a client is told of theirs
forget_...    what goes

All of it in the tenant's scope.
"""

import base64
import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet, Sum
from django.db.models.functions import Now
from django.http import HttpResponse
from django.utils.http import content_disposition_header
from ninja import Schema

from chat import refusals, uploads
from chat.models import Attachment, Message
from tenants.models import EndUser
from tenants.table import fetch, one_at_a_time

# What was uploaded and not sent goes after so long.
UNSENT: Final = timedelta(days=1)
# Of a conversation the last ones are looked at; models take fewer pictures.
MOST_EARLIER: Final = 24
# Guests are many and cost nothing to be: they have this part of what others have.
GUESTS_PART: Final = 10

_NOT_READ: Final = ("data", "text")
# What `Attached` holds.
_ATTACHED: Final = ("pk", "kind", "name", "text", "message__conversation_id")


class Attached(NamedTuple):
    """An attachment as a question has it. `conversation` is where it was sent; None: nowhere yet."""

    id: uuid.UUID
    kind: str
    name: str
    text: str
    conversation: uuid.UUID | None = None

    @property
    def is_image(self) -> bool:
        """Whether a model is to see it, not to read it."""
        return self.kind == Attachment.Kind.IMAGE


class AttachmentOut(Schema):
    """A picture ("image") or a text file ("text"): bytes, and pixels, of what is kept of it."""

    id: uuid.UUID
    kind: str
    name: str
    size: int
    width: int
    height: int


def allowance(limit: int, user: EndUser) -> int:
    """Return what a user may have of something of which registered ones have `limit`."""
    return limit // GUESTS_PART if user.is_guest else limit


def keep(*, user: EndUser, name: str, data: bytes) -> Attachment:
    """Keep a file until it is sent; the same one that waits already is kept once.

    Raises ProductError 10001 for one that cannot be taken, 102 "attachments_full".
    """
    name, digest = uploads.clean_name(name), hashlib.sha256(data).hexdigest()
    waiting = Attachment.objects.filter(user=user, message=None, sha256=digest, name=name).defer(*_NOT_READ)
    known = waiting.first()
    if known is not None and waiting.filter(pk=known.pk).update(created_at=Now()):
        return known
    upload = uploads.read(name=name, data=data)
    with transaction.atomic():
        # One upload of a user at a time is reckoned, so that several at once do not pass the limit together.
        fetch(one_at_a_time("chat_attachment", user.pk))
        _refuse_full(user, upload.size)
        return Attachment.objects.create(
            tenant_id=user.tenant_id,
            user=user,
            kind=upload.kind,
            name=upload.name,
            media_type=upload.media_type,
            size=upload.size,
            width=upload.width,
            height=upload.height,
            sha256=digest,
            text=upload.text,
            data=upload.data,
        )


def _refuse_full(user: EndUser, size: int) -> None:
    used = of_user(user.pk).aggregate(sum=Sum("size"))["sum"] or 0
    limit = allowance(settings.ATTACHMENT_BYTES_PER_USER, user)
    if used + size > limit:
        raise refusals.attachments_full(used=used, limit=limit)


def of_user(user_id: int) -> QuerySet[Attachment]:
    """Return a user's attachments, without those of conversations that are deleted."""
    is_there = Q(message__isnull=True) | Q(message__conversation__deleted_at__isnull=True)
    return Attachment.objects.filter(is_there, user_id=user_id)


def find(*, user_id: int, attachment_id: uuid.UUID | None) -> Attachment:
    """Return a user's own attachment, bytes and all; raise ProductError 404."""
    found = of_user(user_id).filter(pk=attachment_id).first() if attachment_id else None
    if found is None:
        raise refusals.attachment_not_found()
    return found


def drop(*, user_id: int, attachment_id: uuid.UUID | None) -> None:
    """Throw away what a user uploaded and does not want to send; raise ProductError 404."""
    unsent = Attachment.objects.filter(user_id=user_id, message=None, pk=attachment_id) if attachment_id else None
    if unsent is None or not unsent.delete()[0]:
        raise refusals.attachment_not_found()


def find_for(*, user_id: int, ids: Sequence[uuid.UUID]) -> tuple[Attached, ...]:
    """Return those of a user's own attachments that are named and exist, in that order; no query where none are."""
    if not ids:
        return ()
    rows = of_user(user_id).filter(pk__in=ids)
    known = {row[0]: Attached(*row) for row in rows.values_list(*_ATTACHED)}
    return tuple(known[each] for each in dict.fromkeys(ids) if each in known)


def earlier(*, user_id: int, ids: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Attached]:
    """Return what of these, the latest first, is looked at for a prompt; no query where there are none."""
    return {found.id: found for found in find_for(user_id=user_id, ids=ids[:MOST_EARLIER])}


def claim(*, message: Message, files: Sequence[Attached], changed: Iterable[Attached] = ()) -> None:
    """Note that files are sent with a message, whose row is there; `changed`: those whose words moderation masked.

    Raises ProductError 404 for one that belongs to another conversation, or went meanwhile.
    """
    if any(file.conversation not in {None, message.conversation_id} for file in files):
        raise refusals.attachment_not_found()
    unsent = [file.id for file in files if file.conversation is None]
    mine = Attachment.objects.filter(user_id=message.user_id)
    if unsent and mine.filter(pk__in=unsent, message=None).update(message=message) != len(unsent):
        raise refusals.attachment_not_found()
    for file in changed:
        mine.filter(pk=file.id).update(name=file.name, text=file.text)


# --- prompts ---


def picture_part(file: Attached) -> dict[str, Any]:
    """Return a picture as a part of a message; `with_pictures` puts it there."""
    return {"type": "image_url", "image_url": {"url": str(file.id)}}


def with_pictures(messages: Sequence[dict[str, Any]]) -> None:
    """Put the pictures into a prompt, whose question stands last, by one query; none where there are none.

    Of earlier questions those that were erased a moment ago are left out; of the question, ProductError 404.
    """
    shown = [message for message in messages if isinstance(message["content"], list)]
    named = [part["image_url"]["url"] for message in shown for part in message["content"] if _is_picture(part)]
    if not named:
        return
    urls = {str(row.pk): data_url(row) for row in Attachment.objects.filter(pk__in=named).only("media_type", "data")}
    for message in shown:
        there = [part for part in message["content"] if not _is_picture(part) or part["image_url"]["url"] in urls]
        if len(there) < len(message["content"]) and message is messages[-1]:
            raise refusals.attachment_not_found()
        message["content"] = [_filled(part, urls) if _is_picture(part) else part for part in there]


def _is_picture(part: Mapping[str, Any]) -> bool:
    return bool(part["type"] == "image_url")


def _filled(part: Mapping[str, Any], urls: Mapping[str, str]) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": urls[part["image_url"]["url"]]}}


# --- what is told of them ---


def listed(messages: Sequence[Message]) -> Sequence[Message]:
    """Give each message what a client is told of its attachments, as `files`; no query where there are none."""
    ids = [each for message in messages for each in message.attachments]
    rows = Attachment.objects.filter(pk__in=ids).defer(*_NOT_READ) if ids else Attachment.objects.none()
    known = {row.pk: row for row in rows}
    for message in messages:
        message.files = [known[each] for each in message.attachments if each in known]  # type: ignore[attr-defined]
    return messages


def files_of(message: Message) -> Sequence[Attachment]:
    """Return what `listed` gave a message."""
    found: Sequence[Attachment] = message.files  # type: ignore[attr-defined]
    return found


def served(attachment: Attachment) -> HttpResponse:
    """Return an attachment as a file that no browser takes for anything else, or runs."""
    is_text = attachment.kind == Attachment.Kind.TEXT
    body = attachment.text.encode() if is_text else bytes(attachment.data)
    response = HttpResponse(body, content_type="text/plain; charset=utf-8" if is_text else attachment.media_type)
    name = attachment.name if is_text else f"{attachment.name.rpartition('.')[0] or attachment.name}.jpg"
    response["Content-Disposition"] = content_disposition_header(as_attachment=is_text, filename=name) or "attachment"
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response["X-Content-Type-Options"] = "nosniff"
    response["Cache-Control"] = "private, no-store"
    return response


def download(*media_types: str) -> dict[str, Any]:
    """Return how OpenAPI describes such a file as an answer."""
    kinds = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}
    return {"responses": {200: {"description": "OK", "content": kinds}}}


def data_url(attachment: Attachment) -> str:
    """Return a picture as an address that holds it."""
    return f"data:{attachment.media_type};base64,{base64.b64encode(attachment.data).decode()}"


# --- what goes ---


def forget_of(message_id: uuid.UUID) -> None:
    """Erase what was first sent with a message, of which nothing may stay."""
    Attachment.objects.filter(message_id=message_id).delete()
