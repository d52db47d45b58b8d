"""The chat's part of what is kept of a person (`tenants.personal`): what was said, receipts, keys, opinions."""

import base64
from collections.abc import Mapping
from typing import Any, Final

from django.utils import timezone

from chat.attachments import of_user
from chat.export import told_of
from chat.labels import ai_label
from chat.models import (
    AnnouncementRead,
    ApiKey,
    Attachment,
    Conversation,
    Feedback,
    Message,
    Report,
    SearchEntry,
    ShareLink,
)
from tenants.models import EndUser
from tenants.personal import Part

# Attachments that are in memory at once.
_AT_A_TIME: Final = 10


def export(user: EndUser) -> Mapping[str, Any]:
    """Return what was said with its AI label, attachments, receipts, API keys without secrets, opinions and reports."""
    rows = Conversation.objects.filter(user=user, deleted_at=None).order_by("created_at", "pk")
    receipts = Message.objects.filter(user=user, receipt__isnull=False).order_by("created_at", "pk")
    keys = ApiKey.objects.filter(user=user).order_by("pk")
    return {
        "label": ai_label(),
        "conversations": [told_of(row, list(row.messages.order_by("created_at", "pk"))) for row in rows],
        "attachments": [_attachment(row) for row in of_user(user.pk).order_by("pk").iterator(chunk_size=_AT_A_TIME)],
        "receipts": [
            {"message_id": str(row.pk), "asked_at": row.created_at.isoformat(), "receipt": row.receipt}
            for row in receipts
        ],
        "api_keys": [{"name": key.name, "hint": key.hint, "created_at": key.created_at.isoformat()} for key in keys],
        "feedback": [
            {"message_id": str(row.message_id), "rating": row.rating, "reason": row.reason}
            for row in Feedback.objects.filter(user=user).order_by("pk")
        ],
        "reports": [
            {"category": row.category, "detail": row.detail, "at": row.created_at.isoformat()}
            for row in Report.objects.filter(reporter=user).order_by("pk")
        ],
    }


def _attachment(row: Attachment) -> dict[str, Any]:
    is_image = row.kind == Attachment.Kind.IMAGE
    content = {"data": base64.b64encode(row.data).decode()} if is_image else {"text": row.text}
    return {
        "id": str(row.pk),
        "message_id": row.message_id and str(row.message_id),
        "kind": row.kind,
        "name": row.name,
        "media_type": row.media_type,
        "at": row.created_at.isoformat(),
        **content,
    }


def erase(user: EndUser) -> Mapping[str, int]:
    """Erase what was said, at once; the messages' rows stay, without texts, for their receipts.

    Evidence of moderation and complaints stays, as the law wants, the latter without the person.
    """
    now = timezone.now()
    said = Message.objects.filter(user=user)
    return {
        "attachments": Attachment.objects.filter(user=user).delete()[0],
        "search_entries": SearchEntry.objects.filter(user=user).delete()[0],
        "feedback": Feedback.objects.filter(user=user).delete()[0],
        "announcements_read": AnnouncementRead.objects.filter(user=user).delete()[0],
        "share_links": ShareLink.objects.filter(user=user, revoked_at=None).update(revoked_at=now),
        "api_keys": ApiKey.objects.filter(user=user).update(name="", revoked_at=now),
        "reports": Report.objects.filter(reporter=user).update(reporter=None),
        "messages": said.update(
            question="", attachments=[], answer="", reasoning="", failure=None, client_msg_id=None, indexed_at=now
        ),
        "conversations": Conversation.objects.filter(user=user).update(title="", deleted_at=now, erased_at=now),
    }


PART = Part(name="chat", export=export, erase=erase)
