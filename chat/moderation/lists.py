"""Word lists, compiled to one automaton each, and what they hit in a folded text.

A hit is settled once nothing that may follow can undo it: a whole word may go on ("sex" in "sextant"), and an
exception may be about to cover it ("大麻" in "大麻烦").
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from ahocorasick_rs import AhoCorasick, MatchKind

from chat.moderation.text import Folded, fold, is_alphabetic

# A word in Latin letters may be spelled out from so many letters on: "a b" is too often just a and b.
_SPELLED_OUT: Final = 3
_ALLOW: Final = "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A row of a list. `action` and `category` are its models' values; `source` is whose list it is in."""

    word: str
    action: str
    category: str
    source: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A word in a folded text, from `start` up to `end`."""

    start: int
    end: int
    word: Word


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A word as it is looked for. `gaps`: where blanks stand in the word itself, before each of its characters."""

    text: str
    gaps: tuple[bool, ...]
    goes_on_before: bool
    goes_on_after: bool
    word: Word


def _pattern(word: Word) -> _Pattern:
    folded = fold(word.word)
    return _Pattern(
        text=folded.text,
        gaps=tuple(folded.gaps[1:]),
        goes_on_before=word.word.startswith("*") or not is_alphabetic(folded.text[0]),
        goes_on_after=word.word.endswith("*") or not is_alphabetic(folded.text[-1]),
        word=word,
    )


class WordList:
    """The words of one owner, compiled. Immutable: threads share it."""

    def __init__(self, words: Iterable[Word]) -> None:
        """Compile words, each with at least one character that folding leaves."""
        by_text: dict[str, list[_Pattern]] = defaultdict(list)
        for word in words:
            pattern = _pattern(word)
            by_text[pattern.text].append(pattern)
        self._patterns = sorted(by_text)
        self._meant = [by_text[text] for text in self._patterns]
        self._automaton = AhoCorasick(self._patterns, matchkind=MatchKind.Standard)
        self.longest = max(map(len, self._patterns), default=0)
        self._openings = _Openings(pattern for patterns in self._meant for pattern in patterns)
        self._exceptions = _Openings(
            pattern for patterns in self._meant for pattern in patterns if pattern.word.action == _ALLOW
        )

    def matches(self, folded: Folded) -> Iterator[tuple[Hit, bool]]:
        """Yield each word, exceptions too, and whether it is certain to be one whatever follows the text."""
        for number, start, end in self._automaton.find_matches_as_indexes(folded.text, overlapping=True):
            for pattern in self._meant[number]:
                if (pattern.goes_on_before or _begins_word(folded, start)) and _is_spelled(folded, start, end, pattern):
                    is_last = end == len(folded.text) and not folded.in_gap
                    if pattern.goes_on_after or is_last or _begins_word(folded, end):
                        yield Hit(start, end, pattern.word), pattern.goes_on_after or not is_last

    def first_open(self, folded: Folded) -> int:
        """Return where the longest end of the text starts that may become a word; its length where none may."""
        return self._openings.first_in(folded)

    def first_open_exception(self, folded: Folded) -> int:
        """Return the same for exceptions alone."""
        return self._exceptions.first_in(folded)


class _Openings:
    """The beginnings of patterns, to be found at the end of a text."""

    def __init__(self, patterns: Iterable[_Pattern]) -> None:
        pairs = [(pattern.text, pattern.goes_on_before) for pattern in patterns]
        self._all = sorted({text for text, _free in pairs})
        self._free = sorted({text for text, free in pairs if free})
        self._firsts = frozenset(text[0] for text in self._all)
        self._longest = max(map(len, self._all), default=0)

    def first_in(self, folded: Folded) -> int:
        text = folded.text
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[start] in self._firsts:
                known = self._all if _begins_word(folded, start) else self._free
                if _is_opening(known, text[start:]):
                    return start
        return len(text)


def _is_opening(known: Sequence[str], end: str) -> bool:
    """Return whether one of the sorted texts goes on after `end`."""
    place = bisect_left(known, end)
    while place < len(known) and known[place] == end:
        place += 1
    return place < len(known) and known[place].startswith(end)


def _begins_word(folded: Folded, start: int) -> bool:
    """Whether no letter stands directly before position `start`, or none at it that could go on with it."""
    if start == 0:
        return not folded.is_cut
    if start == len(folded.text) or folded.gaps[start]:
        return True
    return not (is_alphabetic(folded.text[start - 1]) and is_alphabetic(folded.text[start]))


def _is_spelled(folded: Folded, start: int, end: int, pattern: _Pattern) -> bool:
    """Whether the gaps between a word's Latin letters are its own, none, or one after each letter.

    Else "the pen is mine" would hold a word. Between other characters gaps may be anywhere.
    """
    within = [
        (gap, own)
        for gap, own, (before, after) in zip(
            folded.gaps[start + 1 : end], pattern.gaps, pairwise(pattern.text), strict=True
        )
        if is_alphabetic(before) and is_alphabetic(after)
    ]
    gaps = [gap for gap, _own in within]
    if not any(gaps) or all(gap == own for gap, own in within):
        return True
    return all(gaps) and len(gaps) + 1 >= _SPELLED_OUT


@dataclass(frozen=True, slots=True)
class Findings:
    """What lists say of a text so far.

    `hits` are settled; `open_at` is where what is not yet settled begins: a hit, or what may become one.
    `held_at` is where the first whole hit begins that is not yet settled. Both are the length where there is none.
    """

    hits: list[Hit]
    open_at: int
    held_at: int


class Lists:
    """The platform's list and a tenant's, either of which may be missing.

    A tenant's exceptions cover the words of its own list only: what the platform forbids, no tenant allows.
    """

    def __init__(self, *, platform: WordList | None = None, own: WordList | None = None) -> None:
        self._platform = platform
        self._own = own
        self._lists = [words for words in (platform, own) if words is not None]
        self.longest = max((words.longest for words in self._lists), default=0)

    def find(self, folded: Folded, *, is_whole: bool) -> Findings:
        """Return what is hit; `is_whole` where nothing follows the text."""
        end = len(folded.text)
        exceptions: list[Hit] = []
        found: list[tuple[Hit, bool]] = []
        for words in self._lists:
            for hit, is_certain in words.matches(folded):
                if hit.word.action == _ALLOW:
                    exceptions.append(hit)
                else:
                    found.append((hit, is_certain))
        if not found:
            return Findings([], end if is_whole else self._first_open(folded), end)
        found = [(hit, is_certain) for hit, is_certain in found if not any(_covers(one, hit) for one in exceptions)]
        if is_whole:
            return Findings([hit for hit, _certain in found], end, end)
        coming = {words: words.first_open_exception(folded) for words in self._lists}
        settled, held_at = [], end
        for hit, is_certain in found:
            if is_certain and hit.start < self._exception_from(hit, coming, end):
                settled.append(hit)
            else:
                held_at = min(held_at, hit.start)
        return Findings(settled, min(self._first_open(folded), held_at), held_at)

    def _first_open(self, folded: Folded) -> int:
        return min((words.first_open(folded) for words in self._lists), default=len(folded.text))

    def _exception_from(self, hit: Hit, coming: dict[WordList, int], end: int) -> int:
        """Return where the first exception begins that is still growing and would cover words of the hit's list."""
        lists = [self._platform] if hit.word.source == "platform" else self._lists
        return min((coming[words] for words in lists if words is not None), default=end)


def _covers(exception: Hit, hit: Hit) -> bool:
    return (
        exception.start <= hit.start
        and hit.end <= exception.end
        and (exception.word.source == "platform" or hit.word.source != "platform")
    )
