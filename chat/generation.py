"""The pump: upstream -> answer -> settle, in a task of its own that no connection can cancel.

An `Answer` is the buffer between the two sides. The pump appends what each read from the upstream brought; any number
of readers follow with cursors of their own, wake once and take all that is new. A reader that is slow, or gone,
changes nothing for the pump.

Memory is bounded: an answer by `MAX_ANSWER_BYTES`, their number in this process by `MAX_ANSWERS`.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from contextvars import Context

import structlog
from django.conf import settings
from django.db import DatabaseError

from billing import holds
from billing.models.price import MAX_TOKENS
from chat import pulse, spool
from chat.checkpoints import CHECKPOINT_OUTPUTS, keeper
from chat.events import Delta, Done, Event, Failed, FailureKind, Usage
from chat.frames import chunk_event
from chat.moderation.guard import Guard
from chat.moderation.refusals import Refused
from chat.refusals import gave_up
from chat.threads import in_thread
from chat.turn import (
    MAX_REASONING_CHARACTERS,
    MODERATED,
    Checkpoint,
    Ending,
    Outcome,
    Turn,
    checkpoint_turn,
    close_turn,
    dispatch_turn,
    usage_of,
)
from chat.upstream.base import no_rest
from chat.upstream.pool import stream_first_good

log = structlog.get_logger(__name__)

# Seconds between tries to end a turn while the database is away; after the last it is spooled to disk.
CLOSE_RETRIES = (0.2, 1.0, 3.0)
# Seconds between reads from the upstream while nobody follows an answer: who comes back has all before at once.
UNREAD_GAP = 0.2


class Answer:
    """An answer as it grows: the upstream's chunks as they came, and the text in them.

    Appended to by one writer on the event loop; read with cursors (`chunks` and `texts` run in step).
    """

    def __init__(
        self, *, message_id: uuid.UUID, conversation_id: uuid.UUID | None, model: str, language: str = ""
    ) -> None:
        self.message_id = message_id
        self.conversation_id = conversation_id
        self.model = model
        # That of the person who asked, for what is told where no reader is known.
        self.language = language
        self.chunks: list[bytes] = []
        self.texts: list[str] = []
        # Reasoning that was let through to the readers.
        self.thoughts: list[str] = []
        # Bytes of chunks and characters of text: what the answer takes in memory, nearly.
        self.size = 0
        self.ending: Ending | None = None
        # Of each reader, the seconds between two pieces that it takes.
        self._gaps: list[float] = []
        # Called when the last reader has left before the end.
        self.on_abandoned: Callable[[], None] | None = None
        # Who waits for more, and until when; and the one timer that wakes those in vain who have waited long enough.
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self._alarm: asyncio.TimerHandle | None = None

    def append(self, deltas: list[Delta]) -> None:
        """Add what one read from the upstream brought, and wake every reader once."""
        for delta in deltas:
            self.chunks.append(delta.raw)
            self.texts.append(delta.text)
            self.size += len(delta.raw) + len(delta.text)
            if delta.thought:
                self.thoughts.append(delta.thought)
        self._wake()

    def append_stored(self, text: str, finish_reason: str) -> None:
        """Add an answer that was stored as text, as two chunks: the text, and why it ended. Nothing wakes nobody."""
        chunks = [Delta(text=text, raw=self.chunk_of(text), output=True)] if text else []
        if finish_reason:
            chunks.append(Delta(text="", raw=self.chunk_of("", finish_reason=finish_reason)))
        if chunks:
            self.append(chunks)

    def chunk_of(self, text: str, *, finish_reason: str | None = None) -> bytes:
        """Return `text` as an OpenAI chunk of this answer."""
        return chunk_event(
            text,
            message_id=str(self.message_id),
            model=self.model,
            created=int(time.time()),
            finish_reason=finish_reason,
        )

    def end(self, ending: Ending) -> None:
        """Say how it ended: nothing is appended any more."""
        self.ending = ending
        self._wake()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def grown(self, seen: int, *, within: float) -> bool:
        """Wait until there is more than `seen` chunks or the end; False after `within` seconds without."""
        if len(self.chunks) > seen or self.ending is not None:
            return True
        loop = asyncio.get_running_loop()
        sleeper, deadline = loop.create_future(), loop.time() + within
        self._sleepers.append((deadline, sleeper))
        # Nearly every wait ends by a new chunk. A timer of its own would cost it more than the chunk.
        if self._alarm is None or self._alarm.when() > deadline:
            self._set_alarm(deadline)
        await sleeper
        return len(self.chunks) > seen or self.ending is not None

    @contextlib.contextmanager
    def read(self, *, gap: float = 0.0) -> Iterator[None]:
        """Count as a reader while the block runs, one that takes what is new no more often than every `gap` seconds."""
        self._gaps.append(gap)
        try:
            yield
        finally:
            self._gaps.remove(gap)
            if not self._gaps and self.ending is None and self.on_abandoned is not None:
                self.on_abandoned()

    @property
    def readers(self) -> int:
        """How many read it now."""
        return len(self._gaps)

    def rest(self) -> float:
        """Return for how many seconds nobody wants more than there is."""
        return min(self._gaps, default=UNREAD_GAP)

    def _wake(self) -> None:
        sleepers, self._sleepers = self._sleepers, []
        for _, sleeper in sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    def _set_alarm(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(when, self._ring)

    def _ring(self) -> None:
        """Wake those whose time has come, and wait for the next; nobody's, where nobody waits."""
        self._alarm = None
        now = asyncio.get_running_loop().time()
        waiting = [(deadline, sleeper) for deadline, sleeper in self._sleepers if not sleeper.done()]
        self._sleepers = [(deadline, sleeper) for deadline, sleeper in waiting if deadline > now]
        for deadline, sleeper in waiting:
            if deadline <= now:
                sleeper.set_result(None)
        if self._sleepers:
            self._set_alarm(min(deadline for deadline, _ in self._sleepers))


class Generation:
    """One running answer of this process: its turn, its buffer, and the task that fills it."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.answer = Answer(
            message_id=turn.message_id,
            conversation_id=turn.conversation_id,
            model=turn.model,
            language=turn.language,
        )
        self._finish_reason = ""
        self._usage: holds.Usage | None = None
        self._failure: FailureKind | None = None
        # Pieces that cost something, so far.
        self.outputs = 0
        self._hidden: list[str] = []
        self._stopped = ""
        self._loop = asyncio.get_running_loop()
        self._pumping: asyncio.Task[None] | None = None
        self._beat: pulse.Beat | None = None
        # Stands between the upstream and the buffer where the tenant moderates.
        self._guard: Guard | None = None
        if turn.screened is not None:
            self._guard = Guard(
                turn.screened,
                release=self.answer.append,
                chunk_of=self.answer.chunk_of,
                stop=lambda: self.stop(MODERATED),
            )
        if turn.stop_when_left:
            self.answer.on_abandoned = lambda: self.stop("client_left")

    def stop(self, reason: str) -> None:
        """End the answer here, at the provider too; what was generated is charged, with `reason` on the receipt."""
        self._stopped = self._stopped or reason
        if self._pumping is not None:
            self._pumping.cancel()

    def stop_soon(self, reason: str) -> None:
        """Do the same, called from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the pump
            self._loop.call_soon_threadsafe(self.stop, reason)

    async def run(self) -> None:
        """Pump until the upstream is done, end the turn, tell the readers."""
        with pulse.beat(self.turn.tenant_id) as beat:
            self._beat = beat
            await self._run()
            beat.failed = self._failure is not None and not self._stopped

    async def _run(self) -> None:
        try:
            if self._guard is not None and not await self._guard.admits_question():
                self._stopped = self._stopped or MODERATED
            elif await self._dispatch():
                await self._pump_with_checkpoints()
            else:
                self._failure = FailureKind.TIMEOUT
        except Exception:
            # Whatever broke in here, the user's money is freed and the readers are told.
            log.exception("pump_broke", message_id=str(self.turn.message_id))
            self._failure = FailureKind.PROTOCOL
        await self._close_guard()
        self.answer.end(await self._close())

    async def _dispatch(self) -> bool:
        """Note that the provider is about to be called, unless the admission did, a moment ago.

        Once more where the connection was cut: noted twice is once.
        """
        if time.monotonic() < self.turn.dispatched_until:
            return True
        try:
            return await in_thread(lambda: dispatch_turn(self.turn))
        except DatabaseError:
            log.warning("dispatch_failed", message_id=str(self.turn.message_id), exc_info=True)
            return await in_thread(lambda: dispatch_turn(self.turn))

    async def _close_guard(self) -> None:
        """Have moderation decide what it still holds; where it breaks, that stays unseen, and the turn ends."""
        if self._guard is None:
            return
        try:
            await self._guard.close()
        except Exception:
            log.exception("moderation_broke", message_id=str(self.turn.message_id))

    async def _pump_with_checkpoints(self) -> None:
        if self._stopped:
            return
        self._pumping = asyncio.ensure_future(self._pump())
        try:
            with keeper().keeping(self):
                await self._pumping
        except asyncio.CancelledError:
            if not self._stopped:
                raise

    async def checkpoint(self) -> None:
        """Keep what there is, the last time; a database that is away is left to the hold's own end."""
        outcome = self.outcome()
        quantities = usage_of(self.turn, outcome).quantities
        checkpoint = Checkpoint(turn=self.turn, outcome=outcome, quantities=quantities)
        try:
            await in_thread(lambda: checkpoint_turn(checkpoint))
        except DatabaseError:
            log.warning("checkpoint_failed", message_id=str(self.turn.message_id), exc_info=True)

    async def _pump(self) -> None:
        outputs = 0
        # aclosing: an answer that is stopped here is stopped at the provider too.
        # What moderation looks at is read piece by piece: of a piece with a forbidden word nothing is shown.
        rest = self.answer.rest if self._guard is None else no_rest
        stream = stream_first_good(self.turn.targets, self.turn.request, rest=rest)
        async with contextlib.aclosing(stream) as batches:
            async for events in batches:
                self._take(events)
                if self.outputs // CHECKPOINT_OUTPUTS != outputs // CHECKPOINT_OUTPUTS:
                    keeper().hurry()
                outputs = self.outputs
                if self.outputs > self.turn.request.max_tokens or self.answer.size > settings.MAX_ANSWER_BYTES:
                    # Each delta is a token at least, so the upstream ignores the limit, and what is held is used up;
                    # or it sends more than any answer has, and what we keep of one is used up.
                    self._finish_reason = "length"
                    break

    def _take(self, events: list[Event]) -> None:
        deltas: list[Delta] = []
        limit = self.turn.request.max_tokens
        for event in events:
            if self.outputs > limit:
                break  # what is beyond the hold is nobody's, also where it came in one piece with the rest
            match event:
                case Delta():
                    deltas.append(event)
                    self.outputs += event.output
                    if event.hidden:
                        self._hidden.append(event.hidden)
                case Usage():
                    self._usage = _trusted(event)
                case Done():
                    self._finish_reason = event.finish_reason
                case Failed():
                    self._failure = event.kind
        if self.outputs and self._beat is not None:
            self._beat.output()
        if deltas:
            (self.answer.append if self._guard is None else self._guard.take)(deltas)

    def outcome(self) -> Outcome:
        """Return what there is so far."""
        guard = self._guard
        return Outcome(
            text="".join(self.answer.texts),
            reasoning="".join(self.answer.thoughts)[:MAX_REASONING_CHARACTERS],
            # What was refused before any of it was shown costs nothing, though it was generated.
            had_output=guard.has_shown if guard is not None and guard.refused else self.outputs > 0,
            hidden="".join(self._hidden) + (guard.withheld if guard is not None else ""),
            finish_reason=self._finish_reason,
            stopped=self._stopped,
            usage=self._usage,
            failure=self._failure,
            refused=guard.refused if guard is not None else Refused.NOTHING,
            found=tuple(guard.found) if guard is not None else (),
        )

    async def _close(self) -> Ending:
        outcome = self.outcome()
        for pause in (*CLOSE_RETRIES, None):
            try:
                return await in_thread(lambda: close_turn(self.turn, outcome))
            except DatabaseError:
                log.exception("close_failed", message_id=str(self.turn.message_id), next_try_in=pause)
                if pause is not None:
                    await asyncio.sleep(pause)
            except Exception:
                # Not cured by another try; the readers must not wait for ever, and the hold ends itself.
                log.exception("close_broke", message_id=str(self.turn.message_id))
                return Ending(failure=gave_up())
        await in_thread(lambda: spool.keep(self.turn, outcome))
        return Ending(failure=gave_up())


def _trusted(usage: Usage) -> holds.Usage | None:
    """Return the upstream's figures, or None where they cannot be meant: then the offline count serves."""
    figures = (usage.prompt, usage.cached, usage.completion)
    if not usage.prompt or any(figure < 0 or figure > MAX_TOKENS for figure in figures):
        return None
    return holds.Usage(
        prompt=usage.prompt,
        cached=min(usage.cached, usage.prompt),
        completion=usage.completion,
        source="upstream",
    )


# Strong references: a task that nobody holds may be collected in mid-answer.
_running: dict[uuid.UUID, tuple[Generation, asyncio.Task[None]]] = {}
_admitting = 0


@contextlib.contextmanager
def room() -> Iterator[bool]:
    """Keep room for one more answer while its turn is admitted; False where this process has none left."""
    global _admitting  # noqa: PLW0603  the process's own count
    _admitting += 1
    try:
        yield len(_running) + _admitting <= settings.MAX_ANSWERS
    finally:
        _admitting -= 1


def start(turn: Turn) -> Answer:
    """Start the pump of an admitted turn and return its answer, which grows from now on."""
    generation = Generation(turn)
    context = Context()
    context.run(structlog.contextvars.bind_contextvars, message_id=str(turn.message_id))
    task = asyncio.get_running_loop().create_task(generation.run(), name=f"pump-{turn.message_id}", context=context)
    _running[turn.message_id] = (generation, task)
    task.add_done_callback(lambda _task: _running.pop(turn.message_id, None))
    return generation.answer


def running_answer(message_id: uuid.UUID) -> Answer | None:
    """Return the answer that this process is generating under that id."""
    found = _running.get(message_id)
    return found[0].answer if found else None


def stop(message_id: uuid.UUID, reason: str) -> bool:
    """Stop an answer of this process, from any thread; False where it is none, or has ended."""
    found = _running.get(message_id)
    if found is not None:
        found[0].stop_soon(reason)
    return found is not None


async def drain(*, within: float) -> int:
    """Wait at most `within` seconds for this process's pumps to end their turns; return how many did not.

    Those are checkpointed: what they had generated is what their holds will be charged.
    """
    if not _running:
        return 0
    await asyncio.wait([task for _generation, task in _running.values()], timeout=within)
    left = [generation for generation, _task in _running.values()]
    await asyncio.gather(*(generation.checkpoint() for generation in left))
    return len(left)
