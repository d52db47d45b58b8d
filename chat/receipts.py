"""The JSON API of receipts: what each answer cost its user, and why, as the stream told it."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from django.db.models import QuerySet
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from ninja import Router, Schema
from pydantic import Field

from billing.yuan import show_yuan
from chat.models import Message
from tenants.api import Envelope, Month, Span, ok, signed_in, span_of, user_of
from tenants.models import EndUser
from tenants.sheets import csv_answer, csv_response

router = Router(tags=["billing"], auth=signed_in)


class ReceiptOut(Schema):
    """An answer's receipt; what it holds is described in docs/protocol.md.

    A call of the OpenAI-compatible API has a key in place of a conversation.
    """

    message_id: uuid.UUID = Field(alias="id")
    conversation_id: uuid.UUID | None
    api_key_id: int | None
    asked_at: datetime = Field(alias="created_at")
    receipt: dict[str, Any]


@router.get("/receipts", response=Envelope[list[ReceiptOut]])
def receipts(
    request: HttpRequest, before: datetime | None = None, limit: Annotated[int, Field(ge=1, le=100)] = 50
) -> Any:
    """Return the user's receipts, the latest first; `before` is the last one's `asked_at`, for the next page."""
    mine = _receipts(user_of(request)).order_by("-created_at")
    if before is not None:
        mine = mine.filter(created_at__lt=before)
    return ok(list(mine[:limit]))


@router.get("/receipts/export", openapi_extra=csv_answer())
def export(request: HttpRequest, month: Month = None, format: Literal["csv", "json"] = "csv") -> Any:  # noqa: A002  # the parameter's name
    """Return a month's receipts as a file, the oldest first; the present month where none is named."""
    span = span_of(request, month)
    mine = _receipts(user_of(request)).filter(created_at__gte=span.began, created_at__lt=span.ended)
    rows = list(mine.order_by("created_at"))
    if format == "json":
        told = [ReceiptOut.from_orm(row).model_dump(mode="json") for row in rows]
        name = f'attachment; filename="receipts-{span.name}.json"'
        return JsonResponse(told, safe=False, headers={"Content-Disposition": name})
    return csv_response(
        name=f"receipts-{span.name}",
        head=(
            *(_("time"), _("message"), _("model"), _("prompt tokens"), _("of them cached"), _("completion tokens")),
            *(_("counted by"), _("prompt, yuan per million"), _("cached, yuan per million")),
            *(_("completion, yuan per million"), _("per call, yuan"), _("multiplier, millionths"), _("yuan")),
            *(_("paid by"), _("balance after, yuan"), _("reason")),
        ),
        rows=[_line(row, span) for row in rows],
    )


def _receipts(user: EndUser) -> QuerySet[Message]:
    return Message.objects.filter(user=user, receipt__isnull=False)


def _line(row: Message, span: Span) -> tuple[object, ...]:
    told: dict[str, Any] = row.receipt or {}
    prices = told["unit_prices"]
    return (
        timezone.localtime(row.created_at, span.zone).isoformat(timespec="seconds"),
        row.pk,
        told["model"],
        told["prompt_tokens"],
        told["cached_tokens"],
        told["completion_tokens"],
        told["usage_source"],
        *(show_yuan(int(prices[name])) for name in ("prompt", "cached", "completion", "per_call")),
        prices["multiplier_ppm"],
        show_yuan(int(told["charge"])),
        _funding(told["funding"]),
        show_yuan(int(told["balance"])),
        told["reason"],
    )


def _funding(funding: dict[str, Any]) -> str:
    """Say who paid, in words."""
    parts = [_("free quota")] if funding["free"] else []
    parts += [_("gift balance")] if int(funding["gift"]) else []
    parts += [_("balance")] if int(funding["cash"]) else []
    return ", ".join(parts)
