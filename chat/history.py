"""The JSON API of history: a user's own conversations and what was said in them."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from django.http import HttpRequest
from ninja import Router, Schema
from pydantic import Field

from chat.models import Conversation, Message
from chat.turn import find_conversation, find_message, parse_id
from tenants.api import Envelope, ok, signed_in, user_of

router = Router(tags=["history"], auth=signed_in)

Limit = Annotated[int, Field(ge=1, le=100)]


class ConversationOut(Schema):
    """One conversation, for a list."""

    id: uuid.UUID
    title: str
    created_at: datetime
    updated_at: datetime


class MessageOut(Schema):
    """One question and its answer; the receipt is the one that its stream carried.

    Messages with one `parent_id` are alternatives to each other: regenerated or edited.
    """

    id: uuid.UUID
    parent_id: uuid.UUID | None
    model: str = Field(alias="offer_slug")
    question: str
    answer: str
    state: str
    finish_reason: str
    receipt: dict[str, Any] | None
    failure: dict[str, Any] | None
    created_at: datetime
    ended_at: datetime | None


@router.get("/conversations", response=Envelope[list[ConversationOut]])
def conversations(request: HttpRequest, before: datetime | None = None, limit: Limit = 30) -> Any:
    """Return the user's conversations, the latest first; `before` is the last one's `updated_at`, for the next page."""
    mine = Conversation.objects.filter(user=user_of(request)).order_by("-updated_at")
    if before is not None:
        mine = mine.filter(updated_at__lt=before)
    return ok(list(mine[:limit]))


@router.get("/conversations/{conversation_id}/messages", response=Envelope[list[MessageOut]])
def messages(request: HttpRequest, conversation_id: str, before: datetime | None = None, limit: Limit = 50) -> Any:
    """Return a conversation's latest messages, the oldest of them first; `before` pages backwards."""
    found = find_conversation(user_id=user_of(request).pk, conversation_id=conversation_id)
    said = Message.objects.filter(conversation=found).order_by("-created_at")
    if before is not None:
        said = said.filter(created_at__lt=before)
    return ok(list(said[:limit])[::-1])


@router.get("/messages/{message_id}", response=Envelope[MessageOut])
def message(request: HttpRequest, message_id: str) -> Any:
    """Return one message of the user's own."""
    return ok(find_message(user_id=user_of(request).pk, message_id=parse_id(message_id)))
