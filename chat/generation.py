"""The pump: upstream -> answer -> settle, in a task of its own that no connection can cancel.

An `Answer` is the buffer between the two sides. The pump appends what each read from the upstream brought; any number
of readers follow with cursors of their own, wake once and take all that is new. A reader that is slow, or gone,
changes nothing for the pump.
"""

import asyncio
import contextlib
import time
import uuid
from contextvars import Context

import structlog
from django.db import DatabaseError

from billing import holds
from billing.models.price import MAX_TOKENS
from chat.events import Delta, Done, Event, Failed, FailureKind, Usage
from chat.frames import chunk_event
from chat.refusals import gave_up
from chat.threads import in_thread
from chat.turn import Ending, Outcome, Turn, close_turn, dispatch_turn
from chat.upstream.pool import stream_first_good

log = structlog.get_logger(__name__)

# Seconds between tries to end a turn while the database is away; after the last the hold's expiry frees the money.
CLOSE_RETRIES = (0.2, 1.0, 3.0, 10.0)


class Answer:
    """An answer as it grows: the upstream's chunks as they came, and the text in them.

    Appended to by one writer on the event loop; read with cursors (`chunks` and `texts` run in step).
    """

    def __init__(self, *, message_id: uuid.UUID, conversation_id: uuid.UUID, model: str) -> None:
        self.message_id = message_id
        self.conversation_id = conversation_id
        self.model = model
        self.chunks: list[bytes] = []
        self.texts: list[str] = []
        self.ending: Ending | None = None
        self._sleepers: list[asyncio.Future[None]] = []

    def append(self, deltas: list[Delta]) -> None:
        """Add what one read from the upstream brought, and wake every reader once."""
        for delta in deltas:
            self.chunks.append(delta.raw)
            self.texts.append(delta.text)
        self._wake()

    def append_stored(self, text: str, finish_reason: str) -> None:
        """Add an answer that was stored as text, as two chunks: the text, and why it ended."""
        chunks = [Delta(text=text, raw=self.chunk_of(text), output=True)] if text else []
        if finish_reason:
            chunks.append(Delta(text="", raw=self.chunk_of("", finish_reason=finish_reason)))
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

    async def grown(self, seen: int, *, within: float) -> bool:
        """Wait until there is more than `seen` chunks or the end; False after `within` seconds without."""
        if len(self.chunks) > seen or self.ending is not None:
            return True
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.append(sleeper)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(sleeper, within)
        if sleeper in self._sleepers:
            self._sleepers.remove(sleeper)
        return len(self.chunks) > seen or self.ending is not None

    def _wake(self) -> None:
        sleepers, self._sleepers = self._sleepers, []
        for sleeper in sleepers:
            if not sleeper.done():
                sleeper.set_result(None)


class Generation:
    """One running answer of this process: its turn, its buffer, and the task that fills it."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.answer = Answer(message_id=turn.message_id, conversation_id=turn.conversation_id, model=turn.model)
        self._finish_reason = ""
        self._usage: holds.Usage | None = None
        self._failure: FailureKind | None = None
        self._outputs = 0
        self._hidden: list[str] = []

    async def run(self) -> None:
        """Pump until the upstream is done, end the turn, tell the readers."""
        try:
            if await in_thread(lambda: dispatch_turn(self.turn)):
                await self._pump()
            else:
                self._failure = FailureKind.TIMEOUT
        except Exception:
            # Whatever broke in here, the user's money is freed and the readers are told.
            log.exception("pump_broke", message_id=str(self.turn.message_id))
            self._failure = FailureKind.PROTOCOL
        self.answer.end(await self._close())

    async def _pump(self) -> None:
        # aclosing: an answer that is stopped here is stopped at the provider too.
        async with contextlib.aclosing(stream_first_good(self.turn.targets, self.turn.request)) as batches:
            async for events in batches:
                self._take(events)
                if self._outputs > self.turn.request.max_tokens:
                    # Each delta is a token at least, so the upstream ignores the limit, and what is held is used up.
                    self._finish_reason = "length"
                    break

    def _take(self, events: list[Event]) -> None:
        deltas: list[Delta] = []
        for event in events:
            match event:
                case Delta():
                    deltas.append(event)
                    self._outputs += event.output
                    if event.hidden:
                        self._hidden.append(event.hidden)
                case Usage():
                    self._usage = _trusted(event)
                case Done():
                    self._finish_reason = event.finish_reason
                case Failed():
                    self._failure = event.kind
                    log.warning(
                        "upstream_failed",
                        message_id=str(self.turn.message_id),
                        kind=event.kind,
                        status=event.status,
                        detail=event.detail,
                    )
        if deltas:
            self.answer.append(deltas)

    async def _close(self) -> Ending:
        outcome = Outcome(
            text="".join(self.answer.texts),
            had_output=self._outputs > 0,
            hidden="".join(self._hidden),
            finish_reason=self._finish_reason,
            usage=self._usage,
            failure=self._failure,
        )
        for pause in (*CLOSE_RETRIES, None):
            try:
                return await in_thread(lambda: close_turn(self.turn, outcome))
            except DatabaseError:
                log.exception("close_failed", message_id=str(self.turn.message_id), next_try_in=pause)
                if pause is not None:
                    await asyncio.sleep(pause)
            except Exception:
                # Not cured by another try; the readers must not wait for ever, and the hold frees itself.
                log.exception("close_broke", message_id=str(self.turn.message_id))
                break
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


async def drain(*, within: float) -> int:
    """Wait at most `within` seconds for every pump of this process to end its turn; return how many did not."""
    tasks = [task for _generation, task in _running.values()]
    if not tasks:
        return 0
    _done, pending = await asyncio.wait(tasks, timeout=within)
    return len(pending)
