"""The remote checkers against doubles that speak the real protocols."""

from collections.abc import AsyncIterator, Iterator

import pytest

from chat.moderation import checkers
from chat.moderation.checkers import CheckerAwayError, EndpointChecker, Subject, Verdict, WeChatChecker
from tenants.models import MiniProgram
from tenants.wechat import close_client
from tests.doubles.moderations import ModerationsDouble, running_moderations
from tests.doubles.xpay import XPayDouble, running_xpay
from tests.factories import unique

SECRET = "secret-of-the-mini-program"
ANYBODY = Subject(user_id=1)


@pytest.fixture
async def endpoint() -> AsyncIterator[ModerationsDouble]:
    with running_moderations() as double:
        yield double
        await checkers.close()


@pytest.fixture
def wechat() -> Iterator[XPayDouble]:
    with running_xpay() as double:
        double.active_openids.add("o1")
        yield double
        close_client(double.url)


@pytest.fixture
def person(wechat: XPayDouble) -> Subject:
    program = MiniProgram(app_id=unique("wx"), secret=SECRET)
    wechat.secrets[program.app_id] = SECRET
    return Subject(user_id=1, program=program, openid="o1")


def of_endpoint(double: ModerationsDouble, *, may_reach: frozenset[str] | None = None) -> EndpointChecker:
    return EndpointChecker(base_url=f"{double.url}/v1", api_key=double.key, may_reach=may_reach)


async def test_an_endpoint_flags_by_category(endpoint: ModerationsDouble) -> None:
    endpoint.bad |= {"knife": "violence", "kill": "self-harm"}
    checker = of_endpoint(endpoint)
    assert await checker.check("good", ANYBODY) == Verdict(source="endpoint")
    assert await checker.check("kill with a knife", ANYBODY) == Verdict(
        action="block", label="self-harm, violence", source="endpoint"
    )
    assert endpoint.asked == [{"input": "good"}, {"input": "kill with a knife"}]


async def test_a_long_text_is_checked_in_pieces_that_overlap(endpoint: ModerationsDouble) -> None:
    endpoint.bad["needle"] = "hate"
    checker = of_endpoint(endpoint)
    hidden = "x" * 19_997 + "needle" + "x" * 30_000  # across the first piece's end
    assert (await checker.check(hidden, ANYBODY)).action == "block"
    endpoint.asked.clear()
    assert (await checker.check("x" * 45_000, ANYBODY)).action == "pass"
    assert [len(asked["input"]) for asked in endpoint.asked] == [20_000, 20_000, 5_800]


@pytest.mark.parametrize("trouble", ["down", "page", "redirect", "empty", "slow"])
async def test_an_endpoint_without_a_verdict_is_away(
    endpoint: ModerationsDouble, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trouble == "slow":
        monkeypatch.setattr(checkers, "SECONDS", 0.05)
    endpoint.trouble.append(trouble)
    with pytest.raises(CheckerAwayError) as away:
        await of_endpoint(endpoint).check("x", ANYBODY)
    assert endpoint.key not in str(away.value)
    assert len(endpoint.asked) == 1


async def test_a_wrong_key_is_away_and_not_in_the_words(endpoint: ModerationsDouble) -> None:
    checker = EndpointChecker(base_url=f"{endpoint.url}/v1", api_key="sk-wrong")
    with pytest.raises(CheckerAwayError, match=r"\Amoderations: status 401\Z"):
        await checker.check("x", ANYBODY)
    assert "sk-wrong" not in repr(checker)


async def test_a_tenants_endpoint_reaches_no_private_address(endpoint: ModerationsDouble) -> None:
    for url in (endpoint.url, endpoint.url.replace("127.0.0.1", "localhost")):
        checker = EndpointChecker(base_url=f"{url}/v1", api_key=endpoint.key, may_reach=frozenset())
        with pytest.raises(CheckerAwayError):
            await checker.check("x", ANYBODY)
    assert endpoint.asked == []
    allowed = of_endpoint(endpoint, may_reach=frozenset({"127.0.0.0/8"}))
    assert (await allowed.check("x", ANYBODY)).action == "pass"


async def test_wechat_says_what_it_suggests(wechat: XPayDouble, person: Subject) -> None:
    wechat.suggestions |= {"赌": ("risky", 20006), "嫌": ("review", 20003)}
    checker = WeChatChecker(base_url=wechat.url, scene=2)
    said = [await checker.check(text, person) for text in ("好", "去赌", "可嫌")]
    assert said == [
        Verdict(source="wechat"),
        Verdict(action="block", label="illegal", source="wechat"),
        Verdict(action="flag", label="abuse", source="wechat"),
    ]
    assert wechat.checked[0] == {"version": 2, "openid": "o1", "scene": 2, "content": "好"}
    assert len(wechat.made) == 1  # one token for all


async def test_wechat_gets_long_texts_in_pieces(wechat: XPayDouble, person: Subject) -> None:
    wechat.suggestions["赌博"] = ("risky", 20006)
    checker = WeChatChecker(base_url=wechat.url, scene=4)
    assert (await checker.check("好" * 2499 + "赌博" + "好" * 3000, person)).action == "block"
    assert (await checker.check("好" * 2499 + "赌", person)).action == "pass"
    assert max(len(asked["content"]) for asked in wechat.checked) == 2500


async def test_wechat_knows_only_those_who_were_there_lately(wechat: XPayDouble, person: Subject) -> None:
    wechat.active_openids.clear()
    with pytest.raises(CheckerAwayError, match="errcode 61010"):
        await WeChatChecker(base_url=wechat.url, scene=4).check("好", person)


async def test_a_wechat_that_is_down_or_gives_no_token_is_away(wechat: XPayDouble, person: Subject) -> None:
    checker = WeChatChecker(base_url=wechat.url, scene=4)
    await checker.check("好", person)
    wechat.raw.append((502, b"bad gateway"))
    with pytest.raises(CheckerAwayError) as away:
        await checker.check("好", person)
    assert SECRET not in str(away.value)
    unknown = MiniProgram(app_id=unique("wx"), secret=SECRET)
    with pytest.raises(CheckerAwayError):
        await checker.check("好", Subject(user_id=1, program=unknown, openid="o1"))


def test_wechat_checks_no_stranger(person: Subject) -> None:
    checker = WeChatChecker(base_url="http://127.0.0.1:1", scene=4)
    assert (checker.can_check(person), checker.can_check(ANYBODY)) == (True, False)
