"""A text folded to what it looks like, so that a word is found however it is written, and back to its positions.

    ＳＥＸ, ѕех, SÉX, s<zero width>ex     sex
    大 麻, 大*麻, 大<zero width>麻         大麻
    麻煩                                  麻烦

Folding goes character by character, so that a text can be folded piece by piece as it comes.
"""

import unicodedata
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from opencc import OpenCC

# Letters that look like Latin ones and are not, in lower case: Cyrillic, Greek, and Latin's own variants. Full width,
# styled and accented letters fold by Unicode's own tables. Source: https://www.unicode.org/reports/tr39/, without
# the scripts that nobody can type on a phone.
_LOOKALIKES: Final = dict(zip("авеһіјкмнорсѕтухԁԛԝαβεικνορτυχɑɡıʟ", "abehijkmhopcstyxdqwabeikvoptuxagil", strict=True))
# Signs that people put between the characters of a word. Those that end a clause are none: 长大。麻烦 holds no 大麻.
_SIGNS: Final = frozenset("*.·•‧∙・|~^/\\`'_")
_ENDS_LINE: Final = frozenset("\n\r\v\f\x85\u2028\u2029…")
# Drawn as nothing, though Unicode counts them as letters or marks.
_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
_ACCENTS: Final = range(0x300, 0x370)
_FIRST_HAN: Final = 0x2E80  # from here on no alphabet puts blanks between its words
GAP: Final = " "


@dataclass(slots=True)
class Folded:
    """A folded text. `at[i]` is the position in the original that character i came from.

    `gaps[i]`: whether blanks or signs stood before character i, which are not in the text.
    """

    text: str = ""
    at: list[int] = field(default_factory=list)
    gaps: list[bool] = field(default_factory=list)
    # Of what ended the text, for what is folded behind it.
    in_gap: bool = False
    # Whether a part of the text that stood before this one was dropped.
    is_cut: bool = False


def fold(text: str, *, start: int = 0, in_gap: bool = False) -> Folded:
    """Return `text` folded. `start` is its position in a longer one, `in_gap` whether that ended with a gap."""
    folded = Folded(in_gap=in_gap)
    characters: list[str] = []
    for position, character in enumerate(text, start):
        looks = looks_like(character)
        if looks == GAP:
            folded.in_gap = True
            continue
        for part in looks:
            characters.append(part)
            folded.at.append(position)
            folded.gaps.append(folded.in_gap)
            folded.in_gap = False
    folded.text = "".join(characters)
    return folded


def is_alphabetic(character: str) -> bool:
    """Whether a folded character belongs to a script that writes blanks between words; a digit does too."""
    return ord(character) < _FIRST_HAN and character.isalnum()


@cache
def looks_like(character: str) -> str:
    """Return what one character folds to: usually one, GAP for what may stand within a word, "" for nothing."""
    if character in _ENDS_LINE:
        return "\n"
    if character in _INVISIBLE or unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f":
        return ""
    if character.isspace() or character in _SIGNS or unicodedata.category(character) == "Pd":
        return GAP
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    plain = "".join(part for part in plain if ord(part) not in _ACCENTS)
    plain = unicodedata.normalize("NFC", plain)
    return "".join(_LOOKALIKES.get(part) or _simplified(part) for part in plain if not part.isspace())


def _simplified(character: str) -> str:
    """Return the simplified form of a traditional character."""
    return _opencc().convert(character) if ord(character) >= _FIRST_HAN else character


@cache
def _opencc() -> OpenCC:
    return OpenCC("t2s")
