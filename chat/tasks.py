"""Chat's background work: it touches messages, never money."""

from datetime import timedelta

import structlog
from celery import shared_task
from django.conf import settings
from django.utils import timezone

from chat.models import Message
from chat.refusals import gave_up
from tenants import scope

log = structlog.get_logger(__name__)


@shared_task
def close_orphans() -> int:
    """Mark as failed the messages whose process died in mid-answer; their holds free themselves. Returns how many."""
    overdue = timezone.now() - timedelta(seconds=settings.HOLD_SECONDS)
    with scope.platform("sweep of every tenant's unfinished messages"):
        closed = Message.objects.filter(state=Message.State.RUNNING, created_at__lt=overdue).update(
            state=Message.State.FAILED, failure=gave_up().body(""), ended_at=timezone.now()
        )
    if closed:
        log.warning("orphans_closed", count=closed)
    return closed
