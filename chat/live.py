"""Finding an answer to read, and stopping it: running in this process, running in another, or stored.

begin()     the answer of a turn that was just admitted
attach()    the answer of a message, wherever it is
stop()      end an answer, wherever it runs
"""

import asyncio
import uuid
from contextvars import Context
from weakref import WeakKeyDictionary

import structlog
from django.conf import settings
from django.db import DatabaseError

from chat import generation
from chat.generation import Answer
from chat.models import Message
from chat.refusals import gave_up
from chat.relay import KEEP_SECONDS, Note, Relay, ask_to_stop, ending_in, relay_here
from chat.threads import in_thread
from chat.turn import PROCESS, Ending, Turn, ending_of, note_stop, too_many
from tenants import scope

log = structlog.get_logger(__name__)

# Seconds between looks at the row of an answer that no process tells of.
POLL_SECONDS = 0.5
# How long a process that was asked about an answer may be silent.
HEAR_SECONDS = 2.0

_followed: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[uuid.UUID, "_Follower"]] = WeakKeyDictionary()


def begin(turn: Turn) -> Answer:
    """Start generating an admitted turn; other processes can follow it from now on. Runs on the event loop."""
    relay_here().listen()
    return generation.start(turn)


def attach(message: Message) -> Answer:
    """Return the answer of `message`, whole if it has ended, else growing until it does. Runs on the event loop.

    Raises ProductError 102 where this process follows as many answers as it may.
    """
    running = generation.running_answer(message.id)
    if running is not None:
        return running
    if message.state == Message.State.RUNNING:
        return _follow(message)
    answer = _new_answer(message)
    answer.append_stored(message.answer, message.finish_reason)
    answer.end(ending_of(message))
    return answer


def stop(message: Message) -> bool:
    """Stop a message's answer, whichever process generates it; False where it has ended. Not on the event loop.

    What was generated is charged; nothing, if nothing was. Must run in the tenant's scope.
    """
    if not note_stop(message):
        return False
    ask_to_stop(message.pk, process=message.served_by)
    return True


def _new_answer(message: Message) -> Answer:
    return Answer(message_id=message.id, conversation_id=message.conversation_id, model=message.offer_slug)


def _follow(message: Message) -> Answer:
    """Return the growing copy of an answer of another process: one for all of its readers here."""
    followed = _followed.setdefault(asyncio.get_running_loop(), {})
    known = followed.get(message.id)
    if known is None:
        if len(followed) >= settings.MAX_ANSWERS:
            raise too_many("process", settings.MAX_ANSWERS)
        known = followed[message.id] = _Follower(message, relay_here(), among=followed)
    return known.answer


class _Follower:
    """A copy of an answer that another process generates, kept up over the relay, else by looking at its row."""

    def __init__(self, message: Message, relay: Relay, *, among: "dict[uuid.UUID, _Follower]") -> None:
        self._message = message
        self._relay = relay
        self._among = among
        self._length = 0
        # Whether the other process has our place, and what it said: anything at all; that it cannot go on from there.
        self._has_place = False
        self._heard = asyncio.Event()
        self._changed = asyncio.Event()
        self.answer = _new_answer(message)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(), name=f"follower-{message.id}", context=Context())
        self._task.add_done_callback(lambda _task: self._retire())
        self.answer.on_abandoned = self._abandon

    def _abandon(self) -> None:
        """Follow no more, and be found no more: who comes next begins anew, not at what is about to end."""
        self._retire()
        self._task.cancel()

    def _retire(self) -> None:
        if self._among.get(self._message.id) is self:
            del self._among[self._message.id]

    async def _run(self) -> None:
        """Follow for as long as a message can run at most.

        That is the longest answer, and the lease after which the sweep ends what its process left.
        """
        self._relay.hear(self._message.id, self._take)
        try:
            async with asyncio.timeout(settings.UPSTREAM_TOTAL_TIMEOUT + settings.HOLD_SECONDS):
                while self.answer.ending is None:
                    if await self._is_told():
                        await self._change(within=KEEP_SECONDS)
                    elif not await self._look():
                        await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            self.answer.end(Ending(failure=gave_up()))
        except Exception:
            # Whatever broke in here, the readers must not wait for ever.
            log.exception("follower_broke", message_id=str(self._message.id))
            self.answer.end(Ending(failure=gave_up()))
        finally:
            is_last = self._relay.forget(self._message.id, self._take)
            if is_last and self.answer.ending is None:
                await self._relay.tell(self._message.served_by, "leave", self._message.id, to=PROCESS)

    async def _is_told(self) -> bool:
        """Ask the process that generates the answer for what is new; False where nobody says anything."""
        if not self._message.served_by:
            return False
        self._heard.clear()
        self._changed.clear()
        kind, place = ("keep", {}) if self._has_place else ("follow", {"have": self._length})
        self._has_place = True
        if await self._relay.tell(self._message.served_by, kind, self._message.id, to=PROCESS, **place):
            try:
                async with asyncio.timeout(HEAR_SECONDS):
                    await self._heard.wait()
            except TimeoutError:
                self._has_place = False
        else:
            self._has_place = False
        return self._has_place

    async def _change(self, *, within: float) -> None:
        """Wait until the other process cannot go on, or has ended the answer."""
        try:
            async with asyncio.timeout(within):
                await self._changed.wait()
        except TimeoutError:
            return

    def _take(self, note: Note) -> None:
        """Take a note of the process that generates the answer. Runs on the event loop."""
        match note["kind"]:
            case "text":
                self._has_place = self._has_place and self._add(note["at"], note["text"])
            case "end" if note["length"] <= self._length:
                self.answer.append_stored("", note["finish_reason"])
                self.answer.end(ending_in(note))
            case "end" | "gone":
                self._has_place = False
        self._heard.set()
        if not self._has_place or self.answer.ending is not None:
            self._changed.set()

    def _add(self, at: int, text: str) -> bool:
        """Add text that stands at `at` in the answer; False where some before it is missing."""
        if at > self._length:
            return False
        new = text[self._length - at :]
        self.answer.append_stored(new, "")
        self._length += len(new)
        return True

    async def _look(self) -> bool:
        """Take what the row has; True where it has the end. A database that is away is asked again later."""
        try:
            stored = await in_thread(self._reload)
        except DatabaseError:
            log.warning("follower_waits", message_id=str(self._message.id), exc_info=True)
            return False
        if self.answer.ending is not None:
            return True  # told meanwhile
        self._add(0, stored.answer)
        if stored.state == Message.State.RUNNING:
            return False
        self.answer.append_stored("", stored.finish_reason)
        self.answer.end(ending_of(stored))
        return True

    def _reload(self) -> Message:
        with scope.tenant(self._message.tenant_id):
            return Message.objects.get(pk=self._message.pk)
