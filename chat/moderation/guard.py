"""One turn's moderation on the event loop: the remote check of the question, and all that stands before the buffer.

The pump gives it what the upstream brought; it releases what may be shown, and stops the pump where something may not.
A tenant that moderates nothing has none, and its pump appends by itself.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import structlog

from chat.events import Delta
from chat.moderation.checkers import Checker, CheckerAwayError, Subject, Verdict
from chat.moderation.evidence import Evidence, excerpt
from chat.moderation.question import Screened
from chat.moderation.refusals import Refused
from chat.moderation.window import Window

log = structlog.get_logger(__name__)

# What may begin a hit waits so long for what decides it, should the upstream pause just there.
WINDOW_SECONDS: Final = 1.0
# A remote check is given so many characters, or what came in so many seconds; so many before them are given again.
SEGMENT_CHARACTERS: Final = 200
SEGMENT_SECONDS: Final = 0.5
SEGMENT_OVERLAP: Final = 40

Release = Callable[[list[Delta]], None]


class Guard:
    """The moderation of one turn. All of it runs on the pump's event loop."""

    def __init__(
        self, screened: Screened, *, release: Release, chunk_of: Callable[[str], bytes], stop: Callable[[], None]
    ) -> None:
        """`release` shows deltas, `chunk_of` makes a chunk of masked text, `stop` ends the upstream."""
        self.refused = Refused.NOTHING
        # Whether any output was shown: an answer of which nothing was costs nothing.
        self.has_shown = False
        self.found: list[Evidence] = list(screened.found)
        self._screened = screened
        self._release = release
        self._stop = stop
        self._late: list[str] = []
        rules = screened.rules
        checker = next((one for one in rules.checkers if one.can_check(screened.subject)), None)
        self._checker = checker
        self._window = Window(rules.lists, chunk_of=chunk_of) if rules.lists else None
        self._review = None
        if checker is not None and rules.checks_output:
            self._review = _Review(self._says_of_answer, release=self._show)
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    async def admits_question(self) -> bool:
        """Return whether the question may go to the model, as far as a remote checker says."""
        if self._checker is not None:
            action = await self._says(self._checker, self._screened.checked, "question")
            if action == "block":
                self.refused = Refused.QUESTION
            elif action == "unchecked":
                self.refused = Refused.QUESTION_UNCHECKED
        return not self.refused

    def take(self, deltas: list[Delta]) -> None:
        """Take what the upstream brought, and release what may be shown."""
        if self.refused:
            self._late += [delta.text for delta in deltas]
            return
        if self._window is None:
            self._pass_on(deltas)
            return
        self._pass_on(self._window.take(deltas, now=self._loop.time()))
        if self._window.blocked:
            self._refuse(Refused.ANSWER)
        else:
            self._wake_later()

    async def close(self) -> None:
        """Release what is still held, as the answer is over; afterwards `refused`, `found` and `withheld` are final."""
        if self._timer is not None:
            self._timer.cancel()
        if self._window is not None:
            if not self.refused:
                self._pass_on(self._window.end())
                if self._window.blocked:
                    self._refuse(Refused.ANSWER)
            self.found += [
                Evidence(
                    direction="answer",
                    source=word.source,
                    category=word.category,
                    action=word.action,
                    word=word.word,
                    text=text,
                )
                for word, text in sorted(self._window.hits.items(), key=lambda pair: pair[0].action != "block")
            ]
        if self._review is not None:
            await self._review.close(is_over=bool(self.refused))

    @property
    def withheld(self) -> str:
        """The text that was generated and not shown."""
        held = self._window.withheld() if self._window is not None else ""
        waiting = self._review.withheld() if self._review is not None else ""
        return waiting + held + "".join(self._late)

    def _pass_on(self, deltas: list[Delta]) -> None:
        if deltas and self._review is not None:
            self._review.add(deltas)
        elif deltas:
            self._show(deltas)

    def _show(self, deltas: list[Delta]) -> None:
        self.has_shown = self.has_shown or any(delta.output for delta in deltas)
        self._release(deltas)

    def _refuse(self, refused: Refused) -> None:
        if not self.refused:
            self.refused = refused
            self._stop()

    def _wake_later(self) -> None:
        """See to it that nothing is held for longer than `WINDOW_SECONDS`."""
        assert self._window is not None  # noqa: S101  the callers'
        since = self._window.held_since
        if since is not None and self._timer is None:
            self._timer = self._loop.call_at(since + WINDOW_SECONDS, self._let_go)

    def _let_go(self) -> None:
        assert self._window is not None  # noqa: S101  as above
        self._timer = None
        if self.refused:
            return
        before = self._window.held_since
        # A timer may ring a little early.
        self._pass_on(self._window.let_go(until=self._loop.time() - WINDOW_SECONDS + 0.02))
        if self._window.held_since != before:
            self._wake_later()
        # Else a whole hit waits for the next delta, which wakes us by itself.

    async def _says_of_answer(self, text: str) -> bool:
        """Return whether a part of the answer may be shown; refuse the answer where it may not."""
        assert self._checker is not None  # noqa: S101  the constructor's
        action = await self._says(self._checker, text, "answer")
        if action == "block":
            self._refuse(Refused.ANSWER)
        elif action == "unchecked":
            self._refuse(Refused.ANSWER_UNCHECKED)
        return action in {"pass", "flag"}

    async def _says(
        self, checker: Checker, text: str, direction: Literal["question", "answer"]
    ) -> Literal["pass", "flag", "block", "unchecked"]:
        """Return a checker's verdict, evidence kept; where it gives none, what the tenant wants then."""
        verdict = await _verdict(checker, text, self._screened.subject)
        if verdict is None:
            return "unchecked" if self._screened.rules.refuses_unchecked else "pass"
        if verdict.action != "pass":
            self.found.append(
                Evidence(
                    direction=direction,
                    source=verdict.source,
                    category=verdict.label,
                    action=verdict.action,
                    text=excerpt(text, around=0),
                )
            )
        return verdict.action


async def _verdict(checker: Checker, text: str, subject: Subject) -> Verdict | None:
    try:
        return await checker.check(text, subject)
    except CheckerAwayError as away:
        log.warning("moderation_unchecked", checker=type(checker).__name__, reason=str(away))
    except Exception:
        # Whatever broke in here, the tenant's choice for an unchecked text holds.
        log.exception("moderation_broke", checker=type(checker).__name__)
    return None


class _Review:
    """The remote check of an answer, part by part: one part is checked while the next one grows."""

    def __init__(self, may_show: Callable[[str], Awaitable[bool]], *, release: Release) -> None:
        self._may_show = may_show
        self._release = release
        self._waiting: list[Delta] = []
        self._checked: list[Delta] = []
        self._characters = 0
        self._before = ""
        self._due = asyncio.Event()
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def add(self, deltas: list[Delta]) -> None:
        """Add deltas; those without text to check go on at once where none waits before them."""
        if not self._waiting and not self._checked and not any(delta.text or delta.hidden for delta in deltas):
            self._release(deltas)
            return
        self._waiting += deltas
        self._characters += sum(len(delta.text) + len(delta.hidden) for delta in deltas)
        if self._task is None:
            self._task = asyncio.ensure_future(self._work())
        if self._characters >= SEGMENT_CHARACTERS:
            self._due.set()
        elif self._timer is None:
            self._timer = self._loop.call_later(SEGMENT_SECONDS, self._wake)

    async def close(self, *, is_over: bool) -> None:
        """Have the rest checked, unless the answer `is_over` for another reason."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is None:
            return
        self._over = True
        self._due.set()
        if is_over:
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def withheld(self) -> str:
        """Return the text that waits, or that was refused."""
        return "".join(delta.text for delta in (*self._checked, *self._waiting))

    def _wake(self) -> None:
        self._timer = None
        self._due.set()

    async def _work(self) -> None:
        while not (self._over and not self._waiting):
            await self._due.wait()
            self._due.clear()
            self._checked, self._waiting, self._characters = self._waiting, [], 0
            text = "".join(delta.text + delta.hidden for delta in self._checked)
            if text and not await self._may_show(self._before + text):
                return
            self._before = (self._before + text)[-SEGMENT_OVERLAP:]
            shown, self._checked = self._checked, []
            if shown:
                self._release(shown)
            if self._over or self._characters >= SEGMENT_CHARACTERS:
                self._due.set()
