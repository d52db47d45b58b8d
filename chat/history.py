"""The JSON API of history: a user's own conversations and what was said in them."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from django.db import transaction
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest
from django.utils import timezone
from ninja import Router, Schema
from pydantic import Field

from chat import export as files
from chat import search as searching
from chat.attachments import AttachmentOut, listed
from chat.findings import find_conversation, parse_id
from chat.models import Conversation, Feedback, Message, SearchEntry, ShareLink
from chat.turn import find_message
from tenants import throttle
from tenants.api import DAY_SECONDS, Envelope, Text, counted_as, current_tenant, ok, signed_in, user_of
from tenants.models import EndUser

router = Router(tags=["history"], auth=signed_in)

Limit = Annotated[int, Field(ge=1, le=100)]
Query = Annotated[Text, Field(min_length=1, max_length=100)]

EXPORTS_PER_DAY = 20


class ConversationOut(Schema):
    """One conversation, for a list; `role` is the slug of its assistant."""

    id: uuid.UUID
    title: str
    role: str | None
    is_pinned: bool
    is_archived: bool
    created_at: datetime
    updated_at: datetime

    @staticmethod
    def resolve_role(row: Conversation) -> str | None:
        """Name the assistant."""
        return row.role.slug if row.role else None


class ConversationIn(Schema):
    """What a user may change of a conversation; what is left out stays."""

    title: Annotated[Text, Field(min_length=1, max_length=120)] | None = None
    is_pinned: bool | None = None
    is_archived: bool | None = None


class MessageOut(Schema):
    """One question and its answer; the receipt is the one that its stream carried, `feedback` what the user thinks.

    Messages with one `parent_id` are alternatives to each other: regenerated or edited. `reasoning` is what the model
    thought first, "" where it told nothing.
    """

    id: uuid.UUID
    parent_id: uuid.UUID | None
    model: str = Field(alias="offer_slug")
    question: str
    attachments: list[AttachmentOut] = Field(alias="files")
    reasoning: str
    answer: str
    state: str
    finish_reason: str
    receipt: dict[str, Any] | None
    failure: dict[str, Any] | None
    feedback: str | None = Field(default=None, alias="rating")
    created_at: datetime
    ended_at: datetime | None


class HitOut(Schema):
    """A message that was found: where, and the words around it."""

    message_id: uuid.UUID = Field(alias="message.id")
    conversation_id: uuid.UUID = Field(alias="message.conversation_id")
    title: str = Field(alias="message.conversation.title")
    place: str
    snippet: str
    asked_at: datetime = Field(alias="message.created_at")


def mine(user: EndUser) -> QuerySet[Conversation]:
    """Return the conversations that exist for a user."""
    return Conversation.objects.filter(user=user, deleted_at__isnull=True)


@router.get("/conversations", response=Envelope[list[ConversationOut]])
def conversations(  # noqa: PLR0913, PLR0917  # one for each parameter of the query
    request: HttpRequest,
    before: datetime | None = None,
    before_id: uuid.UUID | None = None,
    archived: bool = False,  # noqa: FBT001, FBT002  # a parameter of the query
    pinned: bool | None = None,  # noqa: FBT001  # as above
    q: Query | None = None,
    limit: Limit = 30,
) -> Any:
    """Return the user's conversations, the latest first, archived ones apart.

    `before` is the last one's `updated_at`, for the next page, and `before_id` its `id`, which tells two of one moment
    apart. `pinned` asks for pinned ones only, or for the others; `q` for a part of the title.
    """
    rows = mine(user_of(request)).filter(is_archived=archived).select_related("role").order_by("-updated_at", "-pk")
    if pinned is not None:
        rows = rows.filter(is_pinned=pinned)
    if q is not None:
        rows = rows.filter(title__icontains=q)
    return ok(list(_older(rows, "updated_at", before, before_id)[:limit]))


def _older(rows: QuerySet[Any], moment: str, before: datetime | None, before_id: uuid.UUID | None) -> QuerySet[Any]:
    """Return the rows after the one that ended a page, in an order of falling moments and ids."""
    if before is None:
        return rows
    older = Q(**{f"{moment}__lt": before})
    if before_id is not None:
        older |= Q(**{moment: before, "pk__lt": before_id})
    return rows.filter(older)


@router.get("/conversations/{conversation_id}", response=Envelope[ConversationOut])
def conversation(request: HttpRequest, conversation_id: str) -> Any:
    """Return one conversation of the user's own."""
    return ok(find_conversation(user_id=user_of(request).pk, conversation_id=conversation_id))


@router.post("/conversations/{conversation_id}", response=Envelope[ConversationOut])
def change_conversation(request: HttpRequest, conversation_id: str, payload: ConversationIn) -> Any:
    """Rename, pin or archive a conversation, or take that back."""
    found = find_conversation(user_id=user_of(request).pk, conversation_id=conversation_id)
    changes = payload.dict(exclude_none=True)
    if changes:
        mine(user_of(request)).filter(pk=found.pk).update(**changes)
    return ok(find_conversation(user_id=user_of(request).pk, conversation_id=conversation_id))


@router.post("/conversations/{conversation_id}/delete", response=Envelope[None])
def delete_conversation(request: HttpRequest, conversation_id: str) -> Any:
    """Delete a conversation: it leaves every list, search, file and shared link; receipts and the ledger stay."""
    found = find_conversation(user_id=user_of(request).pk, conversation_id=conversation_id)
    now = timezone.now()
    with transaction.atomic():
        mine(user_of(request)).filter(pk=found.pk).update(deleted_at=now)
        ShareLink.objects.filter(conversation=found, revoked_at__isnull=True).update(revoked_at=now)
        SearchEntry.objects.filter(message__conversation=found).delete()
    return ok()


@router.get("/conversations/{conversation_id}/messages", response=Envelope[list[MessageOut]])
def messages(
    request: HttpRequest,
    conversation_id: str,
    before: datetime | None = None,
    before_id: uuid.UUID | None = None,
    limit: Limit = 50,
) -> Any:
    """Return a conversation's latest messages, the oldest of them first; `before` and `before_id` page backwards."""
    found = find_conversation(user_id=user_of(request).pk, conversation_id=conversation_id)
    said = _with_rating(Message.objects.filter(conversation=found)).order_by("-created_at", "-pk")
    return ok(listed(list(_older(said, "created_at", before, before_id)[:limit])[::-1]))


@router.get("/messages/{message_id}", response=Envelope[MessageOut])
def message(request: HttpRequest, message_id: str) -> Any:
    """Return one message of the user's own."""
    found = find_message(user_id=user_of(request).pk, message_id=parse_id(message_id))
    return ok(listed([_with_rating(Message.objects.filter(pk=found.pk)).get()])[0])


def _with_rating(rows: QuerySet[Message]) -> QuerySet[Any]:
    return rows.annotate(rating=Subquery(Feedback.objects.filter(message=OuterRef("pk")).values("rating")))


@router.get("/search", response=Envelope[list[HitOut]])
def search(request: HttpRequest, q: Query, before: uuid.UUID | None = None, limit: Limit = 20) -> Any:
    """Return the messages whose question or answer has every word of `q`, the latest first.

    Parts of words count, so Chinese needs no blanks. `before` is the last one's `message_id`, for the next page.
    """
    found = searching.find(user=user_of(request), query=q, before=str(before or ""), limit=limit)
    return ok(found)


@router.get("/conversations/{conversation_id}/export", openapi_extra=files.export_answer())
def export_conversation(request: HttpRequest, conversation_id: str, format: files.Format = "md") -> Any:  # noqa: A002  # the parameter's name
    """Return a conversation as a Markdown or JSON file, with the AI label."""
    user = user_of(request)
    found = find_conversation(user_id=user.pk, conversation_id=conversation_id)
    rows = mine(user).filter(pk=found.pk)
    name = f"conversation-{found.pk}"
    return files.export(conversations=rows, tenant=current_tenant(request), name=name, kind=format)


@router.get("/export", openapi_extra=files.export_answer())
def export(request: HttpRequest, format: files.Format = "md") -> Any:  # noqa: A002  # the parameter's name
    """Return all of the user's conversations as one Markdown or JSON file, with the AI label, a few times a day."""
    user, tenant = user_of(request), current_tenant(request)
    throttle.count(what="export", who=counted_as(request), limit=EXPORTS_PER_DAY, seconds=DAY_SECONDS)
    rows = mine(user).order_by("created_at", "pk")
    name = f"conversations-{timezone.now():%Y%m%d}"
    return files.export(conversations=rows, tenant=tenant, name=name, kind=format)
