"""Links that show a conversation to whoever has them: made, listed and revoked by its user, read by anybody.

A link shows what had been said when it was made, nothing later, and nothing of who said it. Who may read it knows its
token, 256 random bits of which only the digest is kept. It ends when it expires or is revoked, or its conversation is
deleted.
"""

import secrets
import uuid
from datetime import datetime, timedelta
from typing import Annotated, Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from ninja import Router, Schema
from pydantic import Field

from chat.attachments import AttachmentOut, download, listed, served
from chat.findings import find_conversation, parse_id
from chat.labels import ai_label, aigc, service_name
from chat.models import Attachment, Message, Report, ShareLink
from chat.refusals import nothing_to_share, share_not_found
from tenants import throttle
from tenants.api import DAY_SECONDS, Envelope, Text, address_of, counted_as, current_tenant, ok, signed_in, user_of
from tenants.login import digest_of
from tenants.models import Tenant

router = Router(tags=["shares"])

SHARES_PER_DAY = 50
REPORTS_PER_DAY = 20
DAYS = 30


class ShareIn(Schema):
    """For how many days a link is good."""

    days: Annotated[int, Field(ge=1, le=365)] = DAYS


class ShareOut(Schema):
    """A link, for its owner's list; its address was shown when it was made."""

    id: int
    conversation_id: uuid.UUID
    title: str = Field(alias="conversation.title")
    created_at: datetime
    expires_at: datetime


class SharedOut(Schema):
    """A new link: its token is shown this once."""

    id: int
    token: str
    url: str
    expires_at: datetime


class SaidOut(Schema):
    """A question and its answer, which a model made; of what was attached pictures can be seen, texts are named."""

    id: uuid.UUID
    question: str
    attachments: list[AttachmentOut] = Field(alias="files")
    answer: str
    model: str = Field(alias="offer_slug")
    asked_at: datetime = Field(alias="created_at")


class SharedConversationOut(Schema):
    """What a link shows; `label` is to be shown with it, `aigc` is the same for programs."""

    title: str
    service: str
    label: str
    aigc: dict[str, Any]
    shared_at: datetime
    expires_at: datetime
    messages: list[SaidOut]


class ReportIn(Schema):
    """What a reader finds wrong with a message that a link shows."""

    message_id: uuid.UUID
    category: Report.Category
    detail: Annotated[Text, Field(max_length=1000)] = ""


@router.post("/conversations/{conversation_id}/share", response=Envelope[SharedOut], auth=signed_in)
def share(request: HttpRequest, conversation_id: str, payload: ShareIn) -> Any:
    """Make a link that shows a conversation as it is now."""
    user = user_of(request)
    found = find_conversation(user_id=user.pk, conversation_id=conversation_id)
    throttle.count(what="share", who=counted_as(request), limit=SHARES_PER_DAY, seconds=DAY_SECONDS)
    if not _answered(Message.objects.filter(conversation=found)).exists():
        raise nothing_to_share()
    token = secrets.token_urlsafe(32)
    link = ShareLink.objects.create(
        tenant_id=user.tenant_id,
        user=user,
        conversation=found,
        digest=digest_of(token),
        expires_at=timezone.now() + timedelta(days=payload.days),
    )
    url = request.build_absolute_uri(reverse("shared", args=[token]))
    return ok({"id": link.pk, "token": token, "url": url, "expires_at": link.expires_at})


@router.get("/shares", response=Envelope[list[ShareOut]], auth=signed_in)
def shares(request: HttpRequest, limit: Annotated[int, Field(ge=1, le=100)] = 100) -> Any:
    """Return the user's links that are good, the latest first."""
    links = _good().filter(user=user_of(request)).select_related("conversation").order_by("-created_at", "-pk")
    return ok(list(links[:limit]))


@router.post("/shares/{share_id}/revoke", response=Envelope[None], auth=signed_in)
def revoke(request: HttpRequest, share_id: int) -> Any:
    """End a link at once; what it showed is 404 from here on."""
    mine = ShareLink.objects.filter(pk=share_id, user=user_of(request))
    if not mine.exists():
        raise share_not_found()
    revoke_links(mine)
    return ok()


@router.get("/shared/{token}", response=Envelope[SharedConversationOut])
def shared(request: HttpRequest, token: str) -> Any:
    """Return what a link shows, to anybody on the hosts of its tenant."""
    return ok(shared_conversation(tenant=current_tenant(request), token=token))


@router.get("/shared/{token}/attachments/{attachment_id}", openapi_extra=download("image/jpeg"))
def shared_picture(request: HttpRequest, token: str, attachment_id: str) -> HttpResponse:  # noqa: ARG001  # ninja's first
    """Return a picture that a link shows, to anybody on the hosts of its tenant."""
    found, link = parse_id(attachment_id), find_share(token)
    if found is None or not _said(link).filter(attachments__contains=[found]).exists():
        raise share_not_found()
    picture = Attachment.objects.filter(pk=found, kind=Attachment.Kind.IMAGE).first()
    if picture is None:
        raise share_not_found()
    return served(picture)


@router.post("/shared/{token}/report", response=Envelope[None])
def report_shared(request: HttpRequest, token: str, payload: ReportIn) -> Any:
    """Tell the tenant's staff what is wrong with a message that a link shows; nothing is kept of who told."""
    tenant = current_tenant(request)
    throttle.count(
        what="report", who=f"{tenant.slug}:{address_of(request)}", limit=REPORTS_PER_DAY, seconds=DAY_SECONDS
    )
    link = find_share(token)
    said = _said(link).filter(pk=payload.message_id).first()
    if said is None:
        raise share_not_found()
    Report.objects.create(
        tenant=tenant,
        message=said,
        share=link,
        category=payload.category,
        detail=payload.detail,
        question=said.question,
        answer=said.answer,
    )
    return ok()


def find_share(token: str) -> ShareLink:
    """Return the link of that token, if it is good; raise ProductError 404. Must run in the tenant's scope."""
    link = _good().filter(digest=digest_of(token)).select_related("conversation").first()
    if link is None:
        raise share_not_found()
    return link


def shared_conversation(*, tenant: Tenant, token: str) -> dict[str, Any]:
    """Return what a link shows, with the AI label; raise ProductError 404. Must run in the tenant's scope."""
    link = find_share(token)
    return {
        "title": link.conversation.title,
        "service": service_name(tenant),
        "label": ai_label(),
        "aigc": aigc(produced_id=f"share-{link.pk}", tenant=tenant),
        "shared_at": link.created_at,
        "expires_at": link.expires_at,
        "messages": listed(list(_said(link))),
    }


def revoke_links(links: QuerySet[ShareLink]) -> int:
    """End links that are not ended yet; return how many."""
    return links.filter(revoked_at__isnull=True).update(revoked_at=timezone.now())


def _good() -> QuerySet[ShareLink]:
    """Return the links that show something: of conversations that exist, by users who are not blocked."""
    return ShareLink.objects.filter(
        revoked_at__isnull=True,
        expires_at__gt=timezone.now(),
        conversation__deleted_at__isnull=True,
        user__is_active=True,
    )


def _said(link: ShareLink) -> QuerySet[Message]:
    """Return what had been answered in the conversation when the link was made, the oldest first."""
    said = Message.objects.filter(conversation_id=link.conversation_id, ended_at__lte=link.created_at)
    return _answered(said).order_by("created_at", "pk")


def _answered(messages: QuerySet[Message]) -> QuerySet[Message]:
    return messages.filter(state__in=[Message.State.DONE, Message.State.CUT]).exclude(answer="")
