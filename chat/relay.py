"""Between web processes: what one generates, others may follow and stop (docs/adr, "Following over Redis").

Each process listens on one channel of its own, named in the rows of the messages that it serves. Notes on it:

    follow {id, to, have}     tell the process `to` the text of answer `id` beyond its first `have` characters
    keep {id, to}             go on telling it; who is silent for LEASE_SECONDS is told no more
    leave {id, to}            nobody reads there any more
    stop {id}                 end the answer
    text {id, at, text}       what follows its first `at` characters
    end {id, length, …}       how it ended, and how many characters it had
    alive {id}                nothing new, but somebody is at it
    gone {id}                 it is not (or no longer) generated here: its row tells

A follower's process is one reader of the answer among others, so nothing is published while nobody follows, and a slow
Redis never slows the pump. Publish and subscribe may lose notes: `at` and `length` show it, and the follower asks
again. Everything here may fail, and costs no more than the speed of following: the message's row has the truth.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any, Final
from weakref import WeakKeyDictionary

import orjson
import redis
import structlog
from django.conf import settings
from django.utils import translation
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from chat import generation
from chat.generation import Answer
from chat.turn import PROCESS, STOPPED, Ending, stored_failure

log = structlog.get_logger(__name__)

# Seconds. A follower says every so often that it still is there …
KEEP_SECONDS: Final = 4.0
# … and is forgotten where it does not.
LEASE_SECONDS: Final = 3 * KEEP_SECONDS
# Texts are told no more often than this: what comes between is joined.
TELL_GAP: Final = 0.03
# A Redis that takes longer is away.
REDIS_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 1.0
# A subscription that has heard nothing for so long is asked whether it still is one.
LISTEN_SECONDS: Final = 10.0
# Characters in one note, chunks joined at once.
MOST_CHARACTERS: Final = 16_384
MOST_CHUNKS: Final = 512

Note = Mapping[str, Any]


def _channel(process: str) -> str:
    return f"banyan:web:{process}"


def ask_to_stop(message_id: uuid.UUID, *, process: str) -> None:
    """Have `process` stop an answer, from any thread: at once if it is this one, else over Redis."""
    if generation.stop(message_id, STOPPED) or process in {"", PROCESS}:
        return
    note = orjson.dumps({"kind": "stop", "id": str(message_id)})
    try:
        with redis.Redis.from_url(
            settings.REDIS_URL, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS
        ) as client:
            client.publish(_channel(process), note)
    except RedisError as away:
        log.warning("relay_away", fault=type(away).__name__)


class Relay:
    """One event loop's share of the relay: its channel, whom it tells, and what it follows."""

    def __init__(self) -> None:
        self._client = Redis.from_url(
            settings.REDIS_URL, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS
        )
        self._is_away = False
        self._listening: asyncio.Task[None] | None = None
        self._telling: dict[tuple[uuid.UUID, str], _Teller] = {}
        self._hearing: dict[uuid.UUID, Callable[[Note], None]] = {}

    def listen(self) -> None:
        """Listen on this process's channel, if it is not listened on yet."""
        if self._listening is None or self._listening.done():
            loop = asyncio.get_running_loop()
            self._listening = loop.create_task(self._listen(), name="relay", context=Context())

    def hear(self, message_id: uuid.UUID, take: Callable[[Note], None]) -> None:
        """Give `take` every note about an answer that this process follows."""
        self.listen()
        self._hearing[message_id] = take

    def forget(self, message_id: uuid.UUID, take: Callable[[Note], None]) -> bool:
        """Give `take` no more notes; False where another one has taken its place."""
        if self._hearing.get(message_id) != take:
            return False
        del self._hearing[message_id]
        return True

    async def tell(self, process: str, kind: str, message_id: uuid.UUID, **more: Any) -> bool:
        """Publish a note to another process; False where Redis is away or nobody listens there."""
        note = orjson.dumps({"kind": kind, "id": str(message_id), **more})
        try:
            listeners = await self._client.publish(_channel(process), note)
        except (RedisError, OSError) as away:
            self._say_away(away)
            return False
        self._is_away = False
        return bool(listeners)

    async def close(self, *, within: float = REDIS_SECONDS) -> None:
        """Tell followers what there still is to tell, at most `within` seconds, and listen no more."""
        tellers = [teller.task for teller in self._telling.values()]
        if tellers:
            await asyncio.wait(tellers, timeout=within)
        left = [task for task in (*tellers, self._listening) if task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        with contextlib.suppress(RedisError, OSError):
            await self._client.aclose()

    def _say_away(self, fault: Exception) -> None:
        """Log that Redis is away, once until it is back."""
        if not self._is_away:
            log.warning("relay_away", fault=type(fault).__name__)
        self._is_away = True

    async def _listen(self) -> None:
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(_channel(PROCESS))
                    self._is_away = False
                    await self._receive(subscription)
            except (RedisError, OSError) as away:
                self._say_away(away)
            except Exception:
                # Whatever a note did, the next one is heard.
                log.exception("relay_broke")
            await asyncio.sleep(RETRY_SECONDS)

    async def _receive(self, subscription: PubSub) -> None:
        """Take notes until the subscription breaks, or gives no sign of life when asked for one."""
        is_silent = False
        while True:
            event = await subscription.get_message(timeout=LISTEN_SECONDS)
            if event is None:
                if is_silent:
                    raise ConnectionError("the subscription is dead")
                await subscription.ping()
            elif event["type"] == "message":
                await self._take(orjson.loads(event["data"]))
            is_silent = event is None

    async def _take(self, note: Note) -> None:
        message_id = uuid.UUID(note["id"])
        match note["kind"]:
            case "stop":
                generation.stop(message_id, STOPPED)
            case "leave":
                if teller := self._telling.get((message_id, note["to"])):
                    teller.task.cancel()
            case "follow" | "keep":
                await self._serve(message_id, note)
            case _:
                if take := self._hearing.get(message_id):
                    take(note)

    async def _serve(self, message_id: uuid.UUID, note: Note) -> None:
        """Begin to tell a process of an answer, or go on, and answer at once that somebody is at it."""
        key = (message_id, note["to"])
        known = self._telling.get(key)
        if known is not None and note["kind"] == "keep":
            known.lease()
            await self.tell(note["to"], "alive", message_id)
            return
        answer = generation.running_answer(message_id)
        if answer is None or note["kind"] == "keep":
            await self.tell(note["to"], "gone", message_id)
            return
        if known is not None:
            known.task.cancel()
        await self.tell(note["to"], "alive", message_id)
        teller = self._telling[key] = _Teller(self, answer, to=note["to"], have=note["have"])
        teller.task.add_done_callback(lambda _task: self._retire(key, teller))

    def _retire(self, key: tuple[uuid.UUID, str], teller: "_Teller") -> None:
        if self._telling.get(key) is teller:
            del self._telling[key]


class _Teller:
    """One process that follows an answer of ours: a reader like any other, whose connection is Redis."""

    def __init__(self, relay: Relay, answer: Answer, *, to: str, have: int) -> None:
        self._relay = relay
        self._answer = answer
        self._to = to
        self._have = have
        self._loop = asyncio.get_running_loop()
        self.lease()
        self.task = self._loop.create_task(self._run(), name=f"teller-{answer.message_id}", context=Context())

    def lease(self) -> None:
        """Go on for a lease from now."""
        self._until = self._loop.time() + LEASE_SECONDS

    async def _run(self) -> None:
        answer, seen, at = self._answer, 0, 0
        with answer.read():
            while self._loop.time() < self._until:
                new = answer.texts[seen : seen + MOST_CHUNKS]
                if new:
                    seen += len(new)
                    text = "".join(new)
                    start = max(0, self._have - at)
                    at += len(text)
                    if not await self._tell_text(text[start:], at=at - len(text) + start):
                        return
                elif answer.ending is not None:
                    await self._tell_end(answer.ending, length=at)
                    return
                else:
                    await answer.grown(seen, within=KEEP_SECONDS)

    async def _tell_text(self, text: str, *, at: int) -> bool:
        for start in range(0, len(text), MOST_CHARACTERS):
            piece = text[start : start + MOST_CHARACTERS]
            if not await self._relay.tell(self._to, "text", self._answer.message_id, at=at + start, text=piece):
                return False
        if text:
            await asyncio.sleep(TELL_GAP)
        return True

    async def _tell_end(self, ending: Ending, *, length: int) -> None:
        with translation.override(self._answer.language or None):
            failure = ending.failure.body("") if ending.failure else None
        await self._relay.tell(
            self._to,
            "end",
            self._answer.message_id,
            length=length,
            finish_reason=ending.finish_reason,
            receipt=ending.receipt,
            failure=failure,
        )


def ending_in(note: Note) -> Ending:
    """Return how an answer ended, from its `end` note."""
    failure = note["failure"]
    return Ending(
        finish_reason=note["finish_reason"],
        receipt=note["receipt"],
        failure=stored_failure(failure) if failure else None,
    )


_relays: WeakKeyDictionary[asyncio.AbstractEventLoop, Relay] = WeakKeyDictionary()


def relay_here() -> Relay:
    """Return the running loop's relay."""
    loop = asyncio.get_running_loop()
    if loop not in _relays:
        _relays[loop] = Relay()
    return _relays[loop]


async def close() -> None:
    """Close the running loop's relay, if it has one."""
    if found := _relays.pop(asyncio.get_running_loop(), None):
        await found.close()
