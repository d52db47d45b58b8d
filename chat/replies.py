"""Answers of the OpenAI-compatible API, for a program that asks again: as they grow, or for some minutes afterwards.

    attach()          the answer of a call that was made before: here, from another process, or kept; None: it is gone
    keep_when_done()  keep an answer that its program has not got, for `API_REPLY_SECONDS`, in Redis

What programs are answered is in no row (docs/adr, "Calls are billed, not kept"), so this is all that is left of it.
Where Redis is away nothing is kept.
"""

import asyncio
import uuid
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, Final

import structlog
from django.conf import settings
from django.core.cache import cache
from django.db import DatabaseError
from django.utils.translation import gettext_lazy as _
from redis.exceptions import RedisError

from chat import generation, refusals
from chat.events import Delta
from chat.generation import Answer
from chat.models import Message
from chat.threads import in_thread
from chat.turn import Ending, ending_of
from tenants import scope
from tenants.errors import ErrorCode, ProductError

log = structlog.get_logger(__name__)

POLL_SECONDS: Final = 0.3
# Between an answer's end and its being kept.
GRACE_SECONDS: Final = 0.5
# A longer answer is not kept, bytes.
MAX_KEPT: Final = 4 * 1024 * 1024

# Strong references: a task that nobody holds may be collected.
_tasks: set[asyncio.Task[None]] = set()


def not_kept() -> ProductError:
    """10001: the call was answered and charged before, and its answer is gone."""
    return ProductError(
        ErrorCode.INVALID,
        _("This request was answered before, and its answer is no longer kept. Send it again with a new key."),
        type="answer_not_kept",
        scope="idempotency_key",
        action="retry_with_new_key",
    )


async def attach(message: Message) -> Answer | None:
    """Return the answer of a call that was made before, whole or growing; None where it has ended and is gone."""
    running = generation.running_answer(message.pk)
    if running is not None:
        return running
    answer = Answer(message_id=message.pk, conversation_id=None, model=message.offer_slug)
    if message.state == Message.State.RUNNING:
        _start(_follow(message, answer), f"reply-{message.pk}")
        return answer
    return answer if await _fill(message, answer) else None


def keep_when_done(answer: Answer) -> None:
    """Keep an answer once it has ended, should its program ask again."""
    _start(_keep(answer), f"keep-{answer.message_id}")


def _start(work: Coroutine[Any, Any, None], name: str) -> None:
    task = asyncio.get_running_loop().create_task(work, name=name, context=Context())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _keep(answer: Answer) -> None:
    while answer.ending is None:
        await answer.grown(len(answer.chunks), within=settings.UPSTREAM_TOTAL_TIMEOUT)
    if answer.size > MAX_KEPT:
        return
    kept = {"chunks": list(answer.chunks), "texts": list(answer.texts)}
    try:
        await in_thread(lambda: cache.set(_name(answer.message_id), kept, timeout=settings.API_REPLY_SECONDS))
    except RedisError as away:
        log.warning("reply_not_kept", message_id=str(answer.message_id), fault=type(away).__name__)


async def _follow(message: Message, answer: Answer) -> None:
    """Wait for the end of a call that another process answers; then its whole answer is there at once."""
    try:
        async with asyncio.timeout(settings.UPSTREAM_TOTAL_TIMEOUT + settings.HOLD_SECONDS):
            ended = await _ended(message)
        if not await _fill(ended, answer):
            answer.end(Ending(failure=not_kept()))
    except TimeoutError:
        answer.end(Ending(failure=refusals.gave_up()))
    except Exception:
        # Whatever broke in here, the program must not wait for ever.
        log.exception("reply_broke", message_id=str(message.pk))
        answer.end(Ending(failure=refusals.gave_up()))


async def _ended(message: Message) -> Message:
    """Return the message's row once its answer has ended. A database that is away is asked again later."""
    while True:
        await asyncio.sleep(POLL_SECONDS)
        try:
            stored = await in_thread(lambda: _reload(message))
        except DatabaseError:
            log.warning("reply_waits", message_id=str(message.pk), exc_info=True)
            continue
        if stored.state != Message.State.RUNNING:
            return stored


def _reload(message: Message) -> Message:
    with scope.tenant(message.tenant_id):
        return Message.objects.get(pk=message.pk)


async def _fill(message: Message, answer: Answer) -> bool:
    """Put the answer of a call that has ended into `answer`; False where it is gone."""
    if message.state != Message.State.FAILED:
        kept = await in_thread(lambda: _kept(message.pk))
        if kept is None:
            await asyncio.sleep(GRACE_SECONDS)
            kept = await in_thread(lambda: _kept(message.pk))
        if kept is None:
            return False
        answer.append([Delta(text=text, raw=raw) for raw, text in zip(kept["chunks"], kept["texts"], strict=True)])
    answer.end(ending_of(message))
    return True


def _kept(message_id: uuid.UUID) -> dict[str, list[Any]] | None:
    try:
        found: dict[str, list[Any]] | None = cache.get(_name(message_id))
    except RedisError as away:
        log.warning("reply_away", message_id=str(message_id), fault=type(away).__name__)
        return None
    return found


def _name(message_id: uuid.UUID) -> str:
    return f"api-reply:{message_id}"
