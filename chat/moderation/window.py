"""The release window of an answer: deltas go in as they come, and out once nothing in them can become a hit any more.

What is held back is bounded in characters, here, and in time, by whoever calls `let_go`. A word that was shown in part
because of either bound is a hit all the same when its rest comes; the rest is not shown.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from chat.events import Delta
from chat.moderation.lists import Hit, Lists, Word
from chat.moderation.text import Folded, fold

# Characters that may be held back at once; a word has at most 64, but any number of blanks may stand within it.
MOST_HELD: Final = 256
# Characters of evidence that are kept of what was shown before a hit.
BEFORE: Final = 500
MASK: Final = "*"


@dataclass(frozen=True, slots=True)
class Span:
    """A hit in the original text, from `start` up to `end`."""

    start: int
    end: int
    word: Word


class _Channel:
    """One text that grows: where it may be shown up to, and what was hit in it."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists
        # The end of the text, folded: as much as a hit may still reach back into.
        self._tail = Folded()
        self._done: set[tuple[int, int, str, str]] = set()
        self.length = 0
        self.safe = 0
        # Where the first whole hit begins that what follows may undo. It is never shown before that is known.
        self._held_at = 0

    def add(self, text: str) -> list[Span]:
        """Add what came and return what is certain to be hit now."""
        more = fold(text, start=self.length, in_gap=self._tail.in_gap)
        self.length += len(text)
        self._tail = Folded(
            self._tail.text + more.text,
            self._tail.at + more.at,
            self._tail.gaps + more.gaps,
            more.in_gap,
            self._tail.is_cut,
        )
        return self._look(is_whole=False)

    def end(self) -> list[Span]:
        """Return what is hit as nothing follows; the whole text may be shown but for that."""
        return self._look(is_whole=True)

    def let_go(self, end: int) -> None:
        """Allow to be shown, up to `end`, what only might begin a hit. A whole one waits for what decides it."""
        self.safe = max(self.safe, min(self._held_at, end))

    def _look(self, *, is_whole: bool) -> list[Span]:
        tail = self._tail
        found = self._lists.find(tail, is_whole=is_whole)
        spans = [span for hit in found.hits if (span := self._span(hit)) is not None]
        self._held_at = self._position(found.held_at)
        self.safe = max(self.safe, self._position(found.open_at), min(self._held_at, self.length - MOST_HELD))
        # One more stays, for what comes first to be known for the beginning of a word, or not.
        self._forget(min(found.open_at, len(tail.text) - self._lists.longest) - 1)
        return spans

    def _span(self, hit: Hit) -> Span | None:
        """Return a hit's place in the original, None if it was returned before."""
        at = self._tail.at
        span = Span(at[hit.start], at[hit.end - 1] + 1, hit.word)
        key = (span.start, span.end, hit.word.word, hit.word.source)
        if key in self._done:
            return None
        self._done.add(key)
        return span

    def _position(self, index: int) -> int:
        """Return where in the original the folded character stands that has this index."""
        at = self._tail.at
        return at[index] if index < len(at) else self.length

    def _forget(self, count: int) -> None:
        """Drop characters that no hit can reach back into."""
        if count > 0:
            tail = self._tail
            self._tail = Folded(tail.text[count:], tail.at[count:], tail.gaps[count:], tail.in_gap, is_cut=True)
            first = self._tail.at[0] if self._tail.at else self.length
            self._done = {key for key in self._done if key[0] >= first}


@dataclass(slots=True)
class _Held:
    """A delta that waits, since when, and the positions up to which it brings the text and the hidden text."""

    delta: Delta
    since: float
    text_end: int
    hidden_end: int


class Window:
    """The window of one answer. `chunk_of` makes a chunk of text, for a delta whose text was masked.

    `hits` grows with the words that were hit, each once; once `blocked` is set, nothing is released any more.
    """

    def __init__(self, lists: Lists, *, chunk_of: Callable[[str], bytes]) -> None:
        self._text = _Channel(lists)
        self._hidden = _Channel(lists)
        self._chunk_of = chunk_of
        self._queue: deque[_Held] = deque()
        self._recent = ""
        self.hits: dict[Word, str] = {}
        self.blocked = False

    @property
    def held_since(self) -> float | None:
        """The moment at which the oldest delta came that is held back, None where none is."""
        return self._queue[0].since if self._queue else None

    def take(self, deltas: Iterable[Delta], *, now: float) -> list[Delta]:
        """Add deltas and return those, of all that are held, that may be shown. `now` is of any clock, in seconds."""
        for delta in deltas:
            self._recent = (self._recent + delta.text + delta.hidden)[-2 * BEFORE :]
            text_spans = self._text.add(delta.text) if delta.text else []
            hidden_spans = self._hidden.add(delta.hidden) if delta.hidden else []
            self._queue.append(_Held(delta, now, self._text.length, self._hidden.length))
            self._act_on(text_spans, hidden_spans)
        return self._release()

    def let_go(self, *, until: float) -> list[Delta]:
        """Return what has been held since `until` or longer, though it may turn out to begin a hit."""
        for held in self._queue:
            if held.since <= until:
                self._text.let_go(held.text_end)
                self._hidden.let_go(held.hidden_end)
        return self._release()

    def end(self) -> list[Delta]:
        """Return what may be shown of all that is held, as the answer is over."""
        self._act_on(self._text.end(), self._hidden.end())
        return self._release()

    def withheld(self) -> str:
        """Return the text that is held back and will not be shown."""
        return "".join(held.delta.text for held in self._queue)

    def _act_on(self, text_spans: list[Span], hidden_spans: list[Span]) -> None:
        for span in (*text_spans, *hidden_spans):
            self.hits.setdefault(span.word, self._recent)
            self.blocked = self.blocked or span.word.action == "block"
        for span in text_spans:
            if span.word.action == "mask":
                self._mask(span)
        for span in hidden_spans:
            if span.word.action == "mask":
                self._drop_hidden(span)

    def _mask(self, span: Span) -> None:
        """Put asterisks over what is still held of a hit."""
        for held in self._queue:
            text = held.delta.text
            start = held.text_end - len(text)
            first, last = max(span.start, start) - start, min(span.end, held.text_end) - start
            if first < last:
                masked = text[:first] + MASK * (last - first) + text[last:]
                held.delta = replace(held.delta, text=masked, thought="", raw=self._chunk_of(masked))

    def _drop_hidden(self, span: Span) -> None:
        """Leave out the chunks of reasoning or tool calls that hold a hit: asterisks have no place there."""
        for held in self._queue:
            start = held.hidden_end - len(held.delta.hidden)
            if max(span.start, start) < min(span.end, held.hidden_end):
                text = held.delta.text
                held.delta = replace(held.delta, hidden="", thought="", raw=self._chunk_of(text) if text else b"")

    def _release(self) -> list[Delta]:
        released: list[Delta] = []
        while self._queue and not self.blocked:
            held = self._queue[0]
            if held.text_end > self._text.safe or held.hidden_end > self._hidden.safe:
                break
            released.append(self._queue.popleft().delta)
        return [delta for delta in released if delta.raw or delta.text]
