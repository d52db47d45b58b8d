"""The ASGI application: the chat's three doors and the staff's socket have callables, the rest is Django's.

The same under uvicorn and daphne. Under a server that speaks the lifespan protocol, shutdown waits for the answers
that are being generated.
"""

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "saas.settings")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

import structlog  # noqa: E402  the lines below need Django's app registry, which the line above fills
from django.conf import settings  # noqa: E402

from billing.tasks import send_gathered  # noqa: E402
from chat import pulse, relay, spool  # noqa: E402
from chat.consumers import SOCKET_PATH, ChatConsumer  # noqa: E402
from chat.generation import drain  # noqa: E402
from chat.moderation import checkers  # noqa: E402
from chat.openai_api import API_PREFIX, openai_api  # noqa: E402
from chat.staff_socket import STAFF_SOCKET_PATH, staff_socket  # noqa: E402
from chat.threads import in_thread  # noqa: E402
from chat.upstream import client, pool, tokens  # noqa: E402
from chat.views import CHAT_PATH, chat_stream  # noqa: E402
from saas.bodies import Bounded  # noqa: E402

log = structlog.get_logger(__name__)

# New objects that make a young collection due, young collections a middle one, and middle ones a full one.
GARBAGE_THRESHOLDS = (50_000, 20, 50)

chat_socket = ChatConsumer.as_asgi()

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Route one connection."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "http" and scope["path"] == CHAT_PATH:
        await chat_stream(scope, receive, send)
    elif scope["type"] == "http" and scope["path"].startswith(API_PREFIX):
        await openai_api(scope, receive, send)
    elif scope["type"] == "websocket" and scope["path"] == SOCKET_PATH:
        await chat_socket(scope, receive, send)
    elif scope["type"] == "websocket" and scope["path"] == STAFF_SOCKET_PATH:
        await staff_socket(scope, receive, send)
    elif scope["type"] == "websocket":
        # No door here: refused at the handshake, which clients see as 403.
        await receive()
        await send({"type": "websocket.close", "code": 1008})
    else:
        await django_application(scope, Bounded(scope, receive), send)


async def _sweep_spool() -> None:
    """End what an earlier process, or this one, could not write because the database was away."""
    while True:
        try:
            await in_thread(spool.settle)
        except Exception:
            log.exception("spool_sweep_broke")
        await asyncio.sleep(settings.SWEEP_SECONDS)


def _spare_the_garbage_collector() -> None:
    """Have it pass over what is loaded once and stays, and look less often at what comes and goes.

    A delta makes a dozen objects and no cycle. By its own thresholds the collector would go through all young objects
    each 50 deltas, and through all of Django's now and then, in the middle of everybody's streams.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


async def _lifespan(receive: Receive, send: Send) -> None:
    sweep: asyncio.Task[None] | None = None
    while True:
        event = await receive()
        if event["type"] == "lifespan.startup":
            # The first count loads the vocabulary: not on somebody's first question.
            await in_thread(lambda: tokens.count(""))
            _spare_the_garbage_collector()
            sweep = asyncio.create_task(_sweep_spool())
            relay.relay_here().listen()
            pulse.keep()
            pool.keep_sharing()  # what others know of upstreams is here before the first question
            await send({"type": "lifespan.startup.complete"})
        else:
            left = await drain(within=settings.DRAIN_SECONDS)
            if left:
                log.warning("answers_left_behind", count=left)
            await in_thread(send_gathered)
            await pulse.close()
            await relay.close()
            await pool.stop_sharing()
            await client.close()
            await checkers.close()
            if sweep is not None:
                sweep.cancel()
            await send({"type": "lifespan.shutdown.complete"})
            return
