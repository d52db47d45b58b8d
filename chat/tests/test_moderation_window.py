"""The release window: what goes out when, and that nothing of a hit does. No database, no server."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.events import Delta
from chat.moderation import guard
from chat.moderation.checkers import CheckerAwayError, Subject, Verdict
from chat.moderation.guard import Guard
from chat.moderation.lists import Lists, Word, WordList
from chat.moderation.question import Screened, find, masked
from chat.moderation.refusals import Refused
from chat.moderation.rules import Rules
from chat.moderation.window import MOST_HELD, Window


def lists(**actions: str) -> Lists:
    """Return a list of words, named with what becomes of a text with one."""
    return Lists(
        platform=WordList(
            Word(word=word, action=action, category="other", source="platform") for word, action in actions.items()
        )
    )


LISTS = lists(大麻="block", 大麻烦="allow", 屏蔽词="mask", 留意="flag", sex="mask")


def chunk(text: str) -> bytes:
    return b"<%b>" % text.encode()


def delta(text: str, hidden: str = "") -> Delta:
    return Delta(text=text, raw=chunk(text or f"({hidden})"), output=True, hidden=hidden, thought=hidden)


def shown(parts: list[str], found_by: Lists = LISTS) -> tuple[list[str], bool]:
    """Return what went out after each part and after the end, and whether the answer was blocked."""
    window = Window(found_by, chunk_of=chunk)
    out = ["".join(one.text for one in window.take([delta(part)], now=0.0)) for part in parts]
    out.append("".join(one.text for one in window.end()))
    return out, window.blocked


def cut(text: str, chance: random.Random) -> list[str]:
    """Return a text in pieces."""
    parts = []
    while text:
        size = chance.randint(1, 4)
        parts.append(text[:size])
        text = text[size:]
    return parts


def test_what_cannot_be_a_hit_goes_out_at_once_and_byte_for_byte() -> None:
    window = Window(LISTS, chunk_of=chunk)
    batch = [delta("你好"), Delta(text="", raw=b"opening"), delta("，世界")]
    assert window.take(batch, now=0.0) == batch
    assert window.held_since is None


def test_a_beginning_waits_and_goes_on_when_it_was_none() -> None:
    assert shown(list("长大了")) == (["长", "", "大了", ""], False)


def test_nothing_of_a_blocked_word_goes_out_nor_anything_after_it() -> None:
    assert shown(list("卖大麻的人")) == (["卖", "", "", "", "", ""], True)
    assert shown(["卖大", "麻"]) == (["", "", ""], True)


def test_an_exception_goes_out_whole() -> None:
    assert shown(list("大麻烦了")) == (["", "", "大麻烦", "了", ""], False)


def test_a_words_end_is_no_word_however_long_ago_its_beginning_was() -> None:
    found_by = lists(sex="block", se="block")
    text = "Essex. Obsess the asexual, dose it."
    assert ("".join(shown(list(text), found_by)[0]), shown(list(text), found_by)[1]) == (text, False)
    assert shown(list("Essex. a sex. b"), found_by)[1]


def test_a_word_at_the_very_end_is_a_hit() -> None:
    assert shown(list("大麻")) == (["", "", ""], True)


def test_a_masked_word_goes_out_as_asterisks_in_chunks_of_ours() -> None:
    window = Window(LISTS, chunk_of=chunk)
    out = [one for part in "这屏 蔽词好" for one in window.take([delta(part)], now=0.0)] + window.end()
    assert "".join(one.text for one in out) == "这****好"
    assert b"".join(one.raw for one in out) == chunk("这") + chunk("*") * 4 + chunk("好")
    assert [word.word for word in window.hits] == ["屏蔽词"]


def test_a_flagged_word_goes_out_and_is_noted() -> None:
    window = Window(LISTS, chunk_of=chunk)
    out = window.take([delta("请留意。")], now=0.0)
    assert ([one.text for one in out], [word.word for word in window.hits]) == (["请留意。"], ["留意"])


def test_reasoning_is_watched_too_and_masked_by_leaving_it_out() -> None:
    window = Window(LISTS, chunk_of=chunk)
    out = window.take([delta("", "想到屏"), delta("", "蔽词。"), delta("好", "然后")], now=0.0) + window.end()
    assert [(one.text, one.raw) for one in out] == [("好", chunk("好"))]
    mixed = Window(LISTS, chunk_of=chunk)
    out = mixed.take([delta("好", "屏蔽词。")], now=0.0) + mixed.end()
    assert [(one.text, one.raw, one.hidden, one.thought) for one in out] == [("好", chunk("好"), "", "")]
    # Reasoning that came with a masked text goes out with neither: a chunk of ours has none.
    masked = Window(LISTS, chunk_of=chunk)
    out = masked.take([delta("屏蔽词。", "想")], now=0.0) + masked.end()
    assert [(one.raw, one.thought) for one in out] == [(chunk("***。"), "")]
    blocked = Window(LISTS, chunk_of=chunk)
    assert blocked.take([delta("", "大麻的")], now=0.0) == []
    assert blocked.blocked


def test_what_is_held_is_bounded_in_characters() -> None:
    window = Window(LISTS, chunk_of=chunk)
    out = window.take([delta("大")], now=0.0)
    for _ in range(MOST_HELD + 9):
        out += window.take([delta(" ")], now=0.0)
    assert len("".join(one.text for one in out)) == 10
    assert window.take([delta("麻的")], now=0.0) == []
    assert window.blocked  # found all the same


def test_a_whole_word_that_may_be_an_exception_is_never_let_go() -> None:
    window = Window(LISTS, chunk_of=chunk)
    assert window.take([delta("长大"), delta("大麻")], now=0.0) == [delta("长大")]
    assert window.let_go(until=10.0) == []
    assert [one.text for one in window.take([delta("烦")], now=0.0)] == ["大麻", "烦"]


@given(
    st.lists(st.sampled_from([*"大麻烦屏蔽词sex 。a", "大麻烦", "sex", "屏蔽", "asex.", " s e x"])).map("".join),
    st.randoms(use_true_random=False),
)
def test_whatever_the_cuts_what_is_masked_is_the_same(text: str, chance: random.Random) -> None:
    found_by = lists(大麻="mask", 大麻烦="allow", 屏蔽词="mask", sex="mask", es="mask")
    out, blocked = shown(cut(text, chance), found_by)
    assert ("".join(out), blocked) == (masked(text, find(found_by, text)), False)


@given(st.text(alphabet="大麻烦屏蔽词留意sex 。a", max_size=60), st.randoms(use_true_random=False))
def test_whatever_the_cuts_the_end_is_the_same(text: str, chance: random.Random) -> None:
    out, blocked = shown(cut(text, chance))
    places = find(LISTS, text)
    assert blocked == any(place.hit.word.action == "block" for place in places)
    if blocked:
        first = min(place.start for place in places if place.hit.word.action == "block")
        assert masked(text, places).startswith("".join(out))
        assert len("".join(out)) <= first
    else:
        assert "".join(out) == masked(text, places)


class Checker:
    """Says what its script says, after a while; keeps what it was asked."""

    def __init__(self, *script: str, seconds: float = 0.0) -> None:
        self.script = list(script)
        self.asked: list[str] = []
        self.seconds = seconds

    def can_check(self, subject: Subject) -> bool:
        return subject.user_id == 1

    async def check(self, text: str, subject: Subject) -> Verdict:
        assert subject.user_id == 1
        self.asked.append(text)
        await asyncio.sleep(self.seconds)
        said = self.script.pop(0) if self.script else "pass"
        if said == "away":
            raise CheckerAwayError("no answer")
        return Verdict(action=said, label="porn", source="endpoint")  # type: ignore[arg-type]  # a test's script


class Pump:
    """A guard with what it released and whether it stopped the pump."""

    def __init__(self, **rules: object) -> None:
        self.out: list[Delta] = []
        self.stops = 0
        self.released, self.stopped = asyncio.Event(), asyncio.Event()
        screened = Screened(
            rules=Rules(**rules),  # type: ignore[arg-type]  # a test's rules
            subject=Subject(user_id=1),
            text="question",
            found=(),
        )
        self.guard = Guard(screened, release=self._release, chunk_of=chunk, stop=self._stop)

    def _release(self, deltas: list[Delta]) -> None:
        self.out += deltas
        self.released.set()

    def _stop(self) -> None:
        self.stops += 1
        self.stopped.set()

    @property
    def text(self) -> str:
        return "".join(one.text for one in self.out)


async def test_a_pause_of_the_upstream_lets_a_beginning_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "WINDOW_SECONDS", 0.03)
    pump = Pump(lists=LISTS)
    pump.guard.take([delta("长大")])
    assert pump.text == ""
    await pump.released.wait()
    pump.guard.take([delta("麻。")])
    await pump.guard.close()
    assert (pump.text, pump.stops, pump.guard.refused) == ("长大", 1, Refused.ANSWER)
    assert pump.guard.withheld == "麻。"
    assert [(one.word, one.action, one.direction) for one in pump.guard.found] == [("大麻", "block", "answer")]


async def test_an_answer_is_checked_part_by_part_before_it_is_shown() -> None:
    checker = Checker(seconds=0.01)
    pump = Pump(checkers=(checker,), checks_output=True)
    opening = Delta(text="", raw=b"opening")
    pump.guard.take([opening])
    assert pump.out == [opening]
    text = "".join(chr(0x4E00 + number) for number in range(900))
    for place in range(0, 900, 30):
        pump.guard.take([delta(text[place : place + 30])])
        await asyncio.sleep(0)
    assert pump.text == ""
    await pump.guard.close()
    assert (pump.text, pump.stops, pump.guard.withheld) == (text, 0, "")
    assert (
        "".join(part if not number else part[guard.SEGMENT_OVERLAP :] for number, part in enumerate(checker.asked))
        == text
    )


async def test_a_part_that_the_checker_refuses_is_not_shown() -> None:
    checker = Checker("pass", "block")
    pump = Pump(checkers=(checker,), checks_output=True)
    good, bad = "好" * 200, "坏" * 200
    pump.guard.take([delta(good)])
    await pump.released.wait()
    pump.guard.take([delta(bad)])
    await pump.stopped.wait()
    pump.guard.take([delta("晚")])
    await pump.guard.close()
    assert (pump.text, pump.stops, pump.guard.refused) == (good, 1, Refused.ANSWER)
    assert pump.guard.withheld == bad + "晚"
    assert [(one.source, one.category, one.action) for one in pump.guard.found] == [("endpoint", "porn", "block")]


@pytest.mark.parametrize(
    ("refuses", "shown_text", "refused"), [(False, "答", Refused.NOTHING), (True, "", Refused.ANSWER_UNCHECKED)]
)
async def test_a_checker_that_is_away_is_the_tenants_choice(refuses: bool, shown_text: str, refused: Refused) -> None:  # noqa: FBT001  # a parameter
    pump = Pump(checkers=(Checker("away"),), checks_output=True, refuses_unchecked=refuses)
    pump.guard.take([delta("答")])
    await pump.guard.close()
    assert (pump.text, pump.guard.refused, pump.guard.has_shown) == (shown_text, refused, bool(shown_text))


@pytest.mark.parametrize(
    ("said", "refuses", "refused"),
    [
        ("pass", True, Refused.NOTHING),
        ("flag", True, Refused.NOTHING),
        ("block", False, Refused.QUESTION),
        ("away", False, Refused.NOTHING),
        ("away", True, Refused.QUESTION_UNCHECKED),
    ],
)
async def test_a_question_is_checked_before_the_model_is_called(said: str, refuses: bool, refused: Refused) -> None:  # noqa: FBT001  # a parameter
    checker = Checker(said)
    pump = Pump(checkers=(checker,), refuses_unchecked=refuses)
    assert await pump.guard.admits_question() is (refused is Refused.NOTHING)
    assert (pump.guard.refused, checker.asked) == (refused, ["question"])
    assert [one.action for one in pump.guard.found] == [said] * (said in {"flag", "block"})
    pump.guard.take([delta("a")])  # the answer itself is not checked here
    assert checker.asked == ["question"]


async def test_a_checker_that_does_not_know_the_person_is_passed_over() -> None:
    class Other(Checker):
        def can_check(self, subject: Subject) -> bool:
            return subject.openid != ""

    first, second = Other("block"), Checker("pass")
    pump = Pump(checkers=(first, second))
    assert await pump.guard.admits_question()
    assert (first.asked, second.asked) == ([], ["question"])
