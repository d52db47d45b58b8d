"""Checkpoints: what this process has generated so far, of all its answers at once, should it die.

One task writes what is new every CHECKPOINT_SECONDS, by one round trip for all of them; a silent upstream's hold is
kept alive in the same way. What that could not keep, because it has ended or someone is at work on it, is asked for
by itself, and says why to stop.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

import structlog
from django.conf import settings
from django.db import DatabaseError

from billing.pricing import Quantities
from chat.threads import in_thread
from chat.turn import HEARTBEATS_PER_LEASE, Checkpoint, Outcome, Turn, checkpoint_turns
from chat.upstream import tokens

if TYPE_CHECKING:
    from uuid import UUID

log = structlog.get_logger(__name__)

# Whichever comes first makes a checkpoint due, if there is anything new.
CHECKPOINT_SECONDS = 2.0
CHECKPOINT_OUTPUTS = 512


class Growing(Protocol):
    """An answer that is being generated."""

    turn: Turn
    # How many pieces that cost something have come.
    outputs: int

    def outcome(self) -> Outcome:
        """Return what there is so far."""

    def stop(self, reason: str) -> None:
        """End it here."""


class _Progress:
    """How far an answer was kept, and counted: what is counted is not counted again."""

    def __init__(self, growing: Growing) -> None:
        self.growing = growing
        self._kept_outputs = 0
        self._kept_at = asyncio.get_running_loop().time()
        self._prompt: int | None = None
        # Characters of text and of what is not shown, and their tokens.
        self._text = self._hidden = self._completion = 0

    def is_due(self, now: float) -> bool:
        """Whether there is something new, or it is time for a sign of life."""
        is_silent = self.growing.outputs == self._kept_outputs
        return not is_silent or now - self._kept_at >= settings.HOLD_SECONDS / HEARTBEATS_PER_LEASE

    def begin(self, now: float) -> Outcome:
        """Return what is to be kept now."""
        self._kept_outputs, self._kept_at = self.growing.outputs, now
        return self.growing.outcome()

    def counted(self, outcome: Outcome) -> Checkpoint:
        """Count what has come since the last time. Two parts take a token more than the whole, at most."""
        turn = self.growing.turn
        if self._prompt is None:
            self._prompt = tokens.count_request(turn.request, image_tokens=turn.image_tokens)
        self._completion += sum(tokens.count_each([outcome.text[self._text :], outcome.hidden[self._hidden :]]))
        self._text, self._hidden = len(outcome.text), len(outcome.hidden)
        completion = min(self._completion, turn.request.max_tokens)
        return Checkpoint(turn=turn, outcome=outcome, quantities=Quantities(prompt=self._prompt, completion=completion))


class Keeper:
    """Keeps the answers of one event loop while there are any."""

    def __init__(self) -> None:
        self._progress: dict[UUID, _Progress] = {}
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def keeping(self, growing: Growing) -> Iterator[None]:
        """Keep an answer while the block runs."""
        self._progress[growing.turn.message_id] = _Progress(growing)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="checkpoints")
        try:
            yield
        finally:
            del self._progress[growing.turn.message_id]

    def hurry(self) -> None:
        """Write now what is due."""
        self._due.set()

    async def _run(self) -> None:
        while self._progress:
            # Not wait_for: it may swallow a cancellation that comes with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECKPOINT_SECONDS):
                    await self._due.wait()
            self._due.clear()
            await self._keep_due()

    async def _keep_due(self) -> None:
        """Keep what is new; a database that is away is tried again later."""
        now = asyncio.get_running_loop().time()
        due = [(progress, progress.begin(now)) for progress in self._progress.values() if progress.is_due(now)]
        if not due:
            return
        try:
            reasons = await in_thread(
                lambda: checkpoint_turns([progress.counted(outcome) for progress, outcome in due])
            )
        except DatabaseError:
            log.warning("checkpoints_failed", answers=len(due), exc_info=True)
            return
        for message_id, reason in reasons.items():
            if message_id in self._progress:
                self._progress[message_id].growing.stop(reason)


_keepers: WeakKeyDictionary[asyncio.AbstractEventLoop, Keeper] = WeakKeyDictionary()


def keeper() -> Keeper:
    """Return the running event loop's keeper."""
    return _keepers.setdefault(asyncio.get_running_loop(), Keeper())
