"""What a word list finds in a text, however it is written, and what it leaves alone. No database."""

import pytest

from chat.moderation.lists import Lists, Word, WordList
from chat.moderation.question import find, masked
from chat.moderation.text import fold


def words(*texts: str, action: str = "block", source: str = "platform") -> list[Word]:
    return [Word(word=text, action=action, category="other", source=source) for text in texts]


def lists(*texts: str, allowed: tuple[str, ...] = ()) -> Lists:
    return Lists(platform=WordList([*words(*texts), *words(*allowed, action="allow")]))


def hits(found_by: Lists, text: str) -> list[tuple[str, str]]:
    """Return each hit's word and the part of the original that it was found in."""
    return [(place.hit.word.word, text[place.start : place.end]) for place in find(found_by, text)]


@pytest.mark.parametrize(
    "text",
    [
        *("大麻", "大 麻", "大\u3000麻", "大\u200b麻", "大*麻", "大-麻", "大.麻", "大·麻", "大_ _麻", "大\u00ad麻"),
        *("大\ufe0f麻", "⼤麻"),
    ],
)
def test_a_chinese_word_is_found_with_anything_between(text: str) -> None:
    assert hits(lists("大麻"), f"买{text}吗") == [("大麻", text)]


@pytest.mark.parametrize(
    "text", ["sex", "SEX", "ＳＥＸ", "ѕех", "ЅЕХ", "séx", "s\u200bex", "s e x", "s.e.x", "𝐬𝐞𝐱", "Ⓢⓔⓧ", "s\u0301ex"]
)
def test_a_latin_word_is_found_in_any_dress(text: str) -> None:
    assert hits(lists("sex"), f"no {text}!") == [("sex", text)]


def test_traditional_and_simplified_are_one() -> None:
    assert hits(lists("赌博"), "線上賭博") == [("赌博", "賭博")]
    assert hits(lists("賭博"), "线上赌博") == [("賭博", "赌博")]


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("大麻", "我们长大。麻烦你了"),
        ("大麻", "长大\n麻烦"),
        ("sex", "Essex and a sextant"),
        ("penis", "The pen is mine"),
        ("penis", "the pe nis"),
        ("anal", "an al dente dish, final"),
        ("ab", "a b"),
        ("911", "19.11"),
    ],
)
def test_what_is_no_hit(word: str, text: str) -> None:
    assert hits(lists(word), text) == []


def test_a_words_own_blanks_may_stand_or_go() -> None:
    both = lists("kill yourself")
    assert [len(hits(both, text)) for text in ("kill yourself", "killyourself", "kill your self")] == [1, 1, 0]


def test_an_asterisk_lets_a_word_go_on() -> None:
    assert hits(lists("fuck*"), "fucking motherfucker") == [("fuck*", "fuck")]
    assert hits(lists("*fuck*"), "a motherfucker") == [("*fuck*", "fuck")]


def test_an_exception_covers_the_word_within_it_alone() -> None:
    both = lists("大麻", allowed=("大麻烦",))
    assert hits(both, "大麻烦") == []
    assert hits(both, "大麻烦，卖大麻") == [("大麻", "大麻")]
    assert hits(both, "这是大麻煩") == []


def test_a_tenant_cannot_allow_what_the_platform_forbids() -> None:
    own = [*words("打折", source="tenant"), *words("大麻烦", "打折季", action="allow", source="tenant")]
    both = Lists(platform=WordList(words("大麻")), own=WordList(own))
    assert hits(both, "大麻烦打折季打折") == [("大麻", "大麻"), ("打折", "打折")]
    forbidding = Lists(platform=WordList(words("打折季", action="allow")), own=WordList(words("打折", source="tenant")))
    assert hits(forbidding, "打折季") == []


def test_masking_keeps_the_length() -> None:
    found_by = Lists(platform=WordList(words("屏蔽", "bad", action="mask")))
    text = "这 屏 蔽 的 BAD 词"
    assert masked(text, find(found_by, text)) == "这 *** 的 *** 词"


def test_folding_piece_by_piece_is_folding_the_whole() -> None:
    text = "Ａ大 *麻\u200b 한글が ½ ﬁ…\n長大。é e\u0301 🏳️‍🌈 x"
    whole = fold(text)
    for cut in range(len(text) + 1):
        first = fold(text[:cut])
        second = fold(text[cut:], start=cut, in_gap=first.in_gap)
        assert (first.text + second.text, first.at + second.at, first.gaps + second.gaps, second.in_gap) == (
            whole.text,
            whole.at,
            whole.gaps,
            whole.in_gap,
        )


def test_what_may_become_a_word_is_open() -> None:
    found_by = lists("大麻", "sex", allowed=("大麻烦",))
    text = "买了大"
    assert found_by.find(fold(text), is_whole=False).open_at == 2
    assert found_by.find(fold("大麻"), is_whole=False).hits == []  # an exception may follow
    assert [hit.word.word for hit in found_by.find(fold("大麻"), is_whole=True).hits] == ["大麻"]
    assert [hit.word.word for hit in found_by.find(fold("大麻的"), is_whole=False).hits] == ["大麻"]
    assert found_by.find(fold("yes"), is_whole=False).open_at == 3  # within a word no word begins
    assert found_by.find(fold("a sex"), is_whole=False).hits == []  # it may go on
    assert [hit.word.word for hit in found_by.find(fold("a sex "), is_whole=False).hits] == ["sex"]
