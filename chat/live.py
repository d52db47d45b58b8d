"""Finding an answer to read: running in this process, running in another, or stored."""

import asyncio
import uuid

from django.conf import settings
from django.utils.translation import gettext_lazy as _

from chat import generation
from chat.generation import Answer
from chat.models import Message
from chat.refusals import gave_up
from chat.threads import in_thread
from chat.turn import Ending, ending_of
from tenants import scope
from tenants.errors import ErrorCode, ProductError

# Seconds between looks at an answer that another process is generating.
POLL_SECONDS = 0.5

_followers: set[asyncio.Task[None]] = set()


def find_message(*, user_id: int, message_id: uuid.UUID | None) -> Message:
    """Return the user's own message; raise ProductError 404. Must run in the tenant's scope."""
    mine = Message.objects.filter(user_id=user_id, conversation__deleted_at__isnull=True)
    message = mine.filter(pk=message_id).first() if message_id else None
    if message is None:
        raise ProductError(
            ErrorCode.NOT_FOUND,
            _("This message does not exist. Please send it again."),
            type="message_not_found",
            scope="message_id",
            action="resend",
        )
    return message


def attach(message: Message) -> Answer:
    """Return the answer of `message`, whole if it has ended, else growing until it does. Runs on the event loop."""
    running = generation.running_answer(message.id)
    if running is not None:
        return running
    answer = Answer(message_id=message.id, conversation_id=message.conversation_id, model=message.offer_slug)
    if message.state == Message.State.RUNNING:
        task = asyncio.get_running_loop().create_task(_follow(message, answer))
        _followers.add(task)
        task.add_done_callback(_followers.discard)
    else:
        _fill(answer, message)
    return answer


def _fill(answer: Answer, message: Message) -> None:
    answer.append_stored(message.answer, message.finish_reason)
    answer.end(ending_of(message))


async def _follow(message: Message, answer: Answer) -> None:
    """Look at the stored row until another process has ended it, at most as long as a message can run.

    That is the longest answer, and the lease after which the sweep ends what its process left.
    """
    life = settings.UPSTREAM_TOTAL_TIMEOUT + settings.HOLD_SECONDS
    for _look in range(int(life / POLL_SECONDS)):
        await asyncio.sleep(POLL_SECONDS)
        stored = await in_thread(lambda: _reload(message))
        if stored.state != Message.State.RUNNING:
            _fill(answer, stored)
            return
    answer.end(Ending(failure=gave_up()))


def _reload(message: Message) -> Message:
    with scope.tenant(message.tenant_id):
        return Message.objects.get(pk=message.pk)
