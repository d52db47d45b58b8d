"""Chat's background work: it touches messages, never money."""

from datetime import timedelta

import structlog
from celery import shared_task
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone, translation

from billing import holds
from billing.models import Hold
from chat import keys, refusals, search
from chat.attachments import UNSENT
from chat.models import Attachment, Conversation, Feedback, Message, SearchEntry
from chat.turn import note_charge
from tenants import scope

log = structlog.get_logger(__name__)

_BATCH = 500


@shared_task
def close_orphans() -> int:
    """End the messages whose process died in mid-answer, once the sweep has ended their holds; return how many.

    What the last checkpoint kept of an answer stays, with a receipt of what it cost.
    """
    with scope.platform("sweep of every tenant's unfinished messages"):
        is_open = Hold.objects.filter(pk=OuterRef("pk"), state=Hold.State.HELD)
        running = Message.objects.filter(~Exists(is_open), state=Message.State.RUNNING).select_related("tenant")
        orphans = list(running.order_by("created_at")[:_BATCH])
    return sum(_close(message) for message in orphans)


def _close(message: Message) -> bool:
    receipt = holds.receipt_of(tenant_id=message.tenant_id, hold_id=message.pk)
    failure = refusals.cut_short() if receipt else refusals.expired()
    with scope.tenant(message.tenant_id), translation.override(message.tenant.language), transaction.atomic():
        told = {"model": message.offer_slug, **receipt.as_json()} if receipt else None
        if message.api_key_id is not None:
            keys.lock(message.api_key_id)
            note_charge(Message.objects.filter(pk=message.pk, state=Message.State.RUNNING).first(), told)
        closed = Message.objects.filter(pk=message.pk, state=Message.State.RUNNING).update(
            state=Message.State.CUT if receipt else Message.State.FAILED,
            answer=message.answer if receipt else "",
            reasoning=message.reasoning if receipt else "",
            receipt=told,
            failure=failure.body(""),
            ended_at=timezone.now(),
        )
    log.warning("orphan_closed", message_id=str(message.pk), charged=receipt is not None)
    return closed == 1


@shared_task
def index_messages() -> int:
    """Bring ended messages into the search's index; return how many. Until then the search reads them themselves."""
    with scope.platform("sweep of every tenant's messages that are not indexed"):
        waiting = Message.objects.filter(indexed_at__isnull=True, ended_at__isnull=False)
        ended = list(waiting.only("tenant_id")[:_BATCH])
    return sum(search.index(message) for message in ended)


@shared_task
def forget_unsent() -> int:
    """Throw away what was attached to nothing for a day; return how many."""
    count, before = 0, timezone.now() - UNSENT
    while True:
        with scope.platform("sweep of every tenant's attachments that were never sent"):
            waiting = Attachment.objects.filter(message__isnull=True, created_at__lt=before)
            unsent = list(waiting.values_list("tenant_id", "pk")[:_BATCH])
        for tenant_id in {tenant_id for tenant_id, _pk in unsent}:
            with scope.tenant(tenant_id):
                # One that is being sent this moment is not unsent any more.
                mine = Attachment.objects.filter(pk__in=[pk for owner, pk in unsent if owner == tenant_id])
                count += mine.filter(message__isnull=True).delete()[0]
        if len(unsent) < _BATCH:
            return count


@shared_task
def erase_deleted() -> int:
    """Erase what was said in conversations that were deleted long enough ago; return how many.

    The messages' rows stay, without texts, for their receipts.
    """
    with scope.platform("sweep of every tenant's deleted conversations"):
        ago = timezone.now() - timedelta(days=settings.DELETED_CONVERSATION_DAYS)
        # Of a user who is gone everything was erased at once: found here is what was asked in that very moment.
        is_due = Q(deleted_at__lt=ago) | Q(user__deleted_at__isnull=False)
        deleted = list(Conversation.objects.filter(is_due, erased_at__isnull=True)[:_BATCH])
    return sum(_erase(conversation) for conversation in deleted)


def _erase(conversation: Conversation) -> bool:
    with scope.tenant(conversation.tenant_id), transaction.atomic():
        waiting = Conversation.objects.filter(pk=conversation.pk, erased_at__isnull=True)
        if not waiting.update(title="", erased_at=timezone.now()):
            return False
        said = Message.objects.filter(conversation=conversation)
        SearchEntry.objects.filter(message__in=said).delete()
        Feedback.objects.filter(message__in=said).delete()
        Attachment.objects.filter(message__in=said).delete()
        said.update(question="", attachments=[], answer="", reasoning="", indexed_at=timezone.now())
    log.info("conversation_erased", conversation_id=str(conversation.pk))
    return True
