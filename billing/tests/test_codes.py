"""How codes are written and found."""

import re

import pytest
from pytest_django import Settings

from billing import codes

CODE = "7KQMX2VB9RTC4WHN"


def test_codes_are_new_and_have_no_look_alikes() -> None:
    made = {codes.new_code() for _ in range(500)}
    assert len(made) == 500
    assert {len(code) for code in made} == {16}
    assert set("".join(made)) == set("23456789ABCDEFGHJKMNPQRSTVWXYZ")


def test_a_code_is_shown_in_groups() -> None:
    assert codes.grouped(CODE) == "7KQM-X2VB-9RTC-4WHN"


@pytest.mark.parametrize(
    "typed",
    [
        CODE,
        "7KQM-X2VB-9RTC-4WHN",
        "7kqm x2vb 9rtc 4whn",
        " 7KQM—X2VB_9RTC–4whn\n",
        "７ＫＱＭ－Ｘ２ＶＢ－９ＲＴＣ－４ｗｈｎ",
        "https://aurora.example/r/7KQM-X2VB-9RTC-4WHN",
        "https://aurora.example/r/7kqmx2vb9rtc4whn?from=card#top",
    ],
)
def test_typing_makes_no_difference(typed: str) -> None:
    assert codes.normal(typed) == CODE


@pytest.mark.parametrize("typed", ["", "-", CODE[:-1], CODE + "2", "0" + CODE[1:], "I" + CODE[1:], "码" * 16, "/r/"])
def test_what_cannot_be_a_code(typed: str) -> None:
    assert codes.normal(typed) is None


def test_the_digest_needs_the_key(settings: Settings) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "one", []
    one = codes.digest_of(CODE)
    assert re.fullmatch("[0-9a-f]{64}", one)
    assert codes.digests_of(CODE) == [one]
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "two", ["one"]
    assert codes.digest_of(CODE) != one
    assert codes.digests_of(CODE) == [codes.digest_of(CODE), one]
