"""The JSON API of what a user thinks of an answer: good or bad, and what is wrong with it."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext
from ninja import Router, Schema
from pydantic import Field

from chat.findings import parse_id
from chat.models import Feedback, Report
from chat.turn import find_message
from tenants import noticeboard, throttle
from tenants.api import DAY_SECONDS, Envelope, Text, counted_as, ok, signed_in, user_of
from tenants.models import Membership, Notice

router = Router(tags=["history"], auth=signed_in)

REPORTS_PER_DAY = 20
# Who is told of reports, and how often of those of one kind, however many there are.
READERS = (Membership.Role.OWNER, Membership.Role.SUPPORT)
TELL_ONCE_IN = timedelta(minutes=10)


class FeedbackIn(Schema):
    """What the user thinks of an answer, and why; an empty rating takes it back."""

    rating: Literal["up", "down", ""]
    reason: Annotated[Text, Field(max_length=500)] = ""


class FeedbackOut(Schema):
    """What is kept of it; none where it was taken back."""

    rating: str
    reason: str


class ReportIn(Schema):
    """What is wrong with an answer."""

    category: Report.Category
    detail: Annotated[Text, Field(max_length=1000)] = ""


@router.post("/messages/{message_id}/feedback", response=Envelope[FeedbackOut | None])
def feedback(request: HttpRequest, message_id: str, payload: FeedbackIn) -> Any:
    """Say whether an answer is good; the last word counts, and an empty rating takes it back."""
    user = user_of(request)
    found = find_message(user_id=user.pk, message_id=parse_id(message_id))
    if not payload.rating:
        Feedback.objects.filter(message=found).delete()
        return ok()
    now = timezone.now()
    row = Feedback(tenant_id=user.tenant_id, user=user, message=found, updated_at=now, **payload.dict())
    Feedback.objects.bulk_create(
        [row],
        update_conflicts=True,
        unique_fields=["tenant", "message"],
        update_fields=["rating", "reason", "updated_at"],
    )
    return ok(row)


@router.post("/messages/{message_id}/report", response=Envelope[None])
def report(request: HttpRequest, message_id: str, payload: ReportIn) -> Any:
    """Tell the tenant's staff what is wrong with an answer."""
    user = user_of(request)
    found = find_message(user_id=user.pk, message_id=parse_id(message_id))
    throttle.count(what="report", who=counted_as(request), limit=REPORTS_PER_DAY, seconds=DAY_SECONDS)
    Report.objects.create(
        tenant_id=user.tenant_id,
        reporter=user,
        message=found,
        question=found.question,
        answer=found.answer,
        **payload.dict(),
    )
    noticeboard.put_up(
        kind=Notice.Kind.REPORT,
        texts=noticeboard.in_every_language(lambda: _reported(payload.category)),
        tenant_id=user.tenant_id,
        roles=READERS,
        once_in=TELL_ONCE_IN,
    )
    return ok()


def _reported(category: Report.Category) -> tuple[str, str]:
    return (
        gettext("A user reports an answer: %(category)s") % {"category": Report.Category(category).label},
        gettext("What was said and why is under “Reports” in your admin."),
    )
