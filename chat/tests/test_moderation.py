"""Moderation through the whole product: what is refused, shown, charged, kept, and when a change counts."""

import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries

from billing import audit
from chat import spool
from chat.models import Conversation, Message, UpstreamAccount
from chat.moderation.evidence import Evidence
from chat.moderation.models import ModerationHit, ModerationSettings, ModerationWord
from chat.moderation.question import screen, screen_messages
from chat.moderation.refusals import Refused
from chat.turn import MODERATED, Ask, Outcome, dispatch_turn, open_turn
from tenants import scope
from tenants.errors import ProductError
from tenants.models import Tenant, WeChatIdentity
from tests.clients.raw import Reply, ask
from tests.doubles.moderations import ModerationsDouble, running_moderations
from tests.factories import make_mini_program, make_tenant
from tests.shop import Shop, open_shop

pytestmark = pytest.mark.usefixtures("committed_db")


@pytest.fixture
def shop(upstream_url: str) -> Shop:
    return open_shop(upstream_url)


@pytest.fixture
def endpoint() -> Iterator[ModerationsDouble]:
    with running_moderations() as double:
        yield double


def add(shop: Shop, *words: str, **fields: str) -> None:
    with scope.tenant(shop.tenant.pk):
        for word in words:
            ModerationWord.objects.create(tenant=shop.tenant, word=word, **fields)


def forbid_by_platform(word: str) -> ModerationWord:
    with scope.platform("a test's words"):
        return ModerationWord.objects.create(word=word)


def check_by(shop: Shop, endpoint: ModerationsDouble, **fields: Any) -> None:
    """Have a tenant's texts checked by the double, over an account of the platform's: it may lead to this machine."""
    with scope.platform("a test's account"):
        account = UpstreamAccount.objects.create(name="m", base_url=f"{endpoint.url}/v1", api_key=endpoint.key)
        ModerationSettings.objects.create(tenant=shop.tenant, account=account, **fields)


def hits(shop: Shop) -> list[tuple[str, str, str, str, str]]:
    with scope.tenant(shop.tenant.pk):
        rows = ModerationHit.objects.order_by("pk")
        return [(row.direction, row.source, row.action, row.word or row.category, row.text) for row in rows]


def say(shop: Shop, port: int, message: str, **parameters: str) -> Reply:
    return ask(port, shop.host, {"message": message, **parameters}, token=shop.alice.token)


def failure_of(reply: Reply) -> dict[str, Any]:
    return dict(json.loads(reply.body.split(b"event: error\ndata: ")[1]))


def text_of(reply: Reply, *, mini: bool) -> str:
    if mini:
        frames = [chunk.data.removeprefix(b"success: ") for chunk in reply.chunks if chunk.data[:1] == b"s"]
        return "".join(json.loads(frame)["content"] for frame in frames)
    data = [line[6:] for line in reply.body.split(b"\n") if line.startswith(b'data: {"id"')]
    return "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in data)


def receipt_of(reply: Reply) -> dict[str, Any] | None:
    """Return the receipt, in either framing."""
    for line in reply.body.splitlines():
        if b'"charge"' in line:
            said = json.loads(line.partition(b": ")[2])
            return dict(said.get("receipt", said))
    return None


def test_a_question_with_a_forbidden_word_is_refused_and_leaves_evidence_alone(
    shop: Shop, chat_port: int, upstream_requests: Callable[[], list[dict[str, Any]]]
) -> None:
    shop.offer("echo")
    add(shop, "违禁词")
    add(open_shop("http://127.0.0.1:1/v1"), "你好")  # another tenant's
    asked = len(upstream_requests())
    for mini in ("0", "1"):
        reply = say(shop, chat_port, "请讲违 禁词", is_wxapp=mini)
        told = failure_of(reply)
        assert (told["code"], told["type"], told["scope"], told["action"]) == (
            11000,
            "question_refused",
            "message",
            "rephrase",
        )
    with scope.tenant(shop.tenant.pk):
        assert (Message.objects.count(), Conversation.objects.count(), len(shop.holds())) == (0, 0, 0)
    assert hits(shop) == [("question", "tenant", "block", "违禁词", "请讲违 禁词")] * 2
    assert len(upstream_requests()) == asked
    assert text_of(say(shop, chat_port, "你好", is_wxapp="1"), mini=True) == "你好"


def test_a_masked_word_reaches_neither_the_model_nor_the_history(
    shop: Shop, chat_port: int, upstream_requests: Callable[[], list[dict[str, Any]]]
) -> None:
    shop.offer("echo")
    add(shop, "屏蔽词", action="mask")
    add(shop, "留意", action="flag")
    for _again in range(2):  # the same key is the same question, as it was written
        reply = say(shop, chat_port, "屏 蔽词请留意", client_msg_id="k")
        assert text_of(reply, mini=False) == "****请留意"
    [message] = shop.messages()
    assert (message.question, message.answer, message.state) == ("****请留意", "****请留意", "done")
    assert upstream_requests()[-1]["messages"] == [{"role": "user", "content": "****请留意"}]
    assert [(one[0], one[2], one[3]) for one in hits(shop)] == [
        ("question", "mask", "屏蔽词"),
        ("question", "flag", "留意"),
        ("answer", "flag", "留意"),
    ]
    with scope.tenant(shop.tenant.pk):
        assert {row.message_id for row in ModerationHit.objects.all()} == {message.pk}
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


@pytest.mark.parametrize("mini", [False, True], ids=["h5", "mini-program"])
def test_a_forbidden_word_ends_the_answer_and_nothing_follows_it(
    shop: Shop,
    chat_port: int,
    scripted_upstream: Any,
    mini: bool,  # noqa: FBT001  # a parameter
) -> None:
    shop.offer("pace:400:10")
    add(shop, "17")
    reply = say(shop, chat_port, "count", is_wxapp="01"[mini])
    before = "".join(f"{number} " for number in range(1, 17))
    assert text_of(reply, mini=mini) == before
    told = failure_of(reply)
    assert (told["code"], told["type"], told["scope"]) == (11000, "answer_refused", "answer")
    receipt = receipt_of(reply)
    assert receipt is not None
    # The word itself was generated and is charged for, though it is not shown.
    assert (receipt["reason"], receipt["usage_source"], int(receipt["charge"]) > 0) == ("moderated", "estimate", True)
    [message] = shop.messages()
    assert (message.state, message.answer) == ("cut", before)
    [hit] = hits(shop)
    assert (hit[:4], hit[4].endswith("17 ")) == (("answer", "tenant", "block", "17"), True)
    for _ in range(100):
        if scripted_upstream.requests()[-1].left:
            break
        time.sleep(0.05)
    assert scripted_upstream.requests()[-1].left
    again = ask(chat_port, shop.host, {"message_id": str(message.pk), "is_wxapp": "01"[mini]}, token=shop.alice.token)
    assert (text_of(again, mini=mini), failure_of(again)["code"]) == (before, 11000)
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


def test_an_answer_that_is_refused_before_any_of_it_was_shown_costs_nothing(shop: Shop, chat_port: int) -> None:
    shop.offer("count:9")
    add(shop, "1")
    had = shop.balance(shop.alice)
    reply = say(shop, chat_port, "count", is_wxapp="1")
    assert (text_of(reply, mini=True), failure_of(reply)["type"], receipt_of(reply)) == ("", "answer_refused", None)
    assert shop.balance(shop.alice) == had
    assert [(hold.state, hold.reason) for hold in shop.holds()] == [("voided", "moderated")]
    assert [message.state for message in shop.messages()] == ["failed"]
    assert len(hits(shop)) == 1
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


def test_both_framings_show_the_same_masked_text(shop: Shop, chat_port: int) -> None:
    shop.offer("count:12")
    add(shop, "5", "11", action="mask")
    expected = "1 2 3 4 * 6 7 8 9 10 ** 12 "
    replies = [say(shop, chat_port, "count", is_wxapp=mini) for mini in "01"]
    assert [text_of(reply, mini=bool(mini)) for mini, reply in enumerate(replies)] == [expected] * 2
    assert [receipt["reason"] for reply in replies if (receipt := receipt_of(reply))] == ["stop"] * 2
    assert [message.answer for message in shop.messages()] == [expected] * 2


def test_a_change_counts_in_every_process_within_seconds(shop: Shop, chat_port: int) -> None:
    shop.offer("echo")
    for change, code in ((lambda: add(shop, "新词"), 11000), (lambda: forbid_by_platform("旧词"), 11000)):
        word = "新词" if not hits(shop) else "旧词"
        assert text_of(say(shop, chat_port, word), mini=False) == word
        change()
        for _ in range(60):
            reply = say(shop, chat_port, word)
            if b"event: error" in reply.body:
                break
            time.sleep(0.25)
        assert failure_of(reply)["code"] == code
    with scope.platform("a test's words"):
        ModerationWord.objects.filter(word="旧词").delete()
    for _ in range(60):
        reply = say(shop, chat_port, "旧词")
        if b"event: error" not in reply.body:
            break
        time.sleep(0.25)
    assert text_of(reply, mini=False) == "旧词"


def test_a_checker_refuses_a_question_before_the_model_is_called(
    shop: Shop, chat_port: int, endpoint: ModerationsDouble, upstream_requests: Callable[[], list[dict[str, Any]]]
) -> None:
    shop.offer("echo")
    endpoint.bad["bomb"] = "violence"
    check_by(shop, endpoint, endpoint_model="omni")
    had, asked = shop.balance(shop.alice), len(upstream_requests())
    for _again in range(2):
        told = failure_of(say(shop, chat_port, "a bomb", client_msg_id="k"))
        assert (told["code"], told["type"]) == (11000, "question_refused")
    assert endpoint.asked == [{"input": "a bomb", "model": "omni"}]
    assert (shop.balance(shop.alice), len(upstream_requests())) == (had, asked)
    [message] = shop.messages()
    assert (message.question, message.answer, message.state) == ("", "", "failed")
    with scope.tenant(shop.tenant.pk):
        assert [row.title for row in Conversation.objects.all()] == [""]
    assert hits(shop) == [("question", "endpoint", "block", "violence", "a bomb")]
    assert text_of(say(shop, chat_port, "a bird"), mini=False) == "a bird"
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


def test_a_checker_refuses_an_answer_before_it_is_shown(
    shop: Shop, chat_port: int, endpoint: ModerationsDouble
) -> None:
    shop.offer("count:300")
    endpoint.bad[" 9 10 "] = "violence"
    check_by(shop, endpoint, checks_output=True)
    had = shop.balance(shop.alice)
    reply = say(shop, chat_port, "count", is_wxapp="1")
    assert (text_of(reply, mini=True), failure_of(reply)["type"]) == ("", "answer_refused")
    assert shop.balance(shop.alice) == had
    endpoint.bad.clear()
    whole = "".join(f"{number} " for number in range(1, 301))
    assert text_of(say(shop, chat_port, "count", is_wxapp="1"), mini=True) == whole


@pytest.mark.parametrize(("when_away", "code"), [("pass", None), ("refuse", 11000)])
def test_a_checker_that_is_away_is_the_tenants_choice(  # fixtures and parameters
    shop: Shop, chat_port: int, endpoint: ModerationsDouble, when_away: str, code: int | None
) -> None:
    shop.offer("echo")
    check_by(shop, endpoint, when_away=when_away)
    endpoint.trouble.append("down")
    reply = say(shop, chat_port, "hello")
    if code is None:
        assert text_of(reply, mini=False) == "hello"
    else:
        told = failure_of(reply)
        assert (told["code"], told["type"], told["action"]) == (code, "content_unchecked", "retry")
        assert [hold.state for hold in shop.holds()] == ["voided"]


def test_what_moderation_costs_a_chat_in_queries(shop: Shop, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    add(shop, "违禁词")
    shop.tenant.refresh_from_db()
    with scope.tenant(shop.tenant.pk):
        assert screen(shop.tenant, shop.alice.user, "x") is not None  # reads the lists
        with django_assert_num_queries(0):
            assert screen(shop.tenant, shop.alice.user, "y") is not None


def test_a_conversation_that_comes_whole_is_looked_at_whole(shop: Shop) -> None:
    add(shop, "禁")
    add(shop, "屏蔽词", action="mask")
    shop.tenant.refresh_from_db()
    image = {"type": "image_url", "image_url": {"url": "https://x.example/屏蔽词.png"}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "屏蔽词"},
        {"role": "assistant", "content": "禁", "tool_calls": []},
        {"role": "user", "content": [{"type": "text", "text": "看屏 蔽词"}, image]},
        {"role": "user", "content": None},
    ]
    with scope.tenant(shop.tenant.pk):
        screened, clean = screen_messages(shop.tenant, shop.alice.user, messages)
        assert screened is not None
        screened.refuse_blocked(shop.alice.user)  # no word to refuse but in what the model itself said
        assert clean == [
            {"role": "system", "content": "***"},
            messages[1],
            {"role": "user", "content": [{"type": "text", "text": "看****"}, image]},
            messages[3],
        ]
        assert (screened.text, [one.word for one in screened.found]) == ("看****", ["屏蔽词", "屏蔽词"])
        bad = [*messages, {"role": "tool", "content": "禁"}]
        refused, _clean = screen_messages(shop.tenant, shop.alice.user, bad)
        assert refused is not None
        with pytest.raises(ProductError, match="question_refused"):
            refused.refuse_blocked(shop.alice.user)
    calm = make_tenant()
    with scope.tenant(calm.pk):
        assert screen_messages(calm, shop.alice.user, messages) == (None, messages)


def test_whoever_changes_what_moderates_raises_the_tenants_revision(shop: Shop) -> None:
    other = make_tenant()

    def revisions() -> list[int]:
        return [Tenant.objects.get(pk=one.pk).moderation_revision for one in (shop.tenant, other)]

    seen = [revisions()]
    add(shop, "甲")
    seen.append(revisions())
    with scope.tenant(shop.tenant.pk):
        ModerationWord.objects.update(category="porn")
        seen.append(revisions())
        ModerationWord.objects.all().delete()
        seen.append(revisions())
        ModerationSettings.objects.create(tenant=shop.tenant)
    seen.append(revisions())
    assert [later[0] > earlier[0] for earlier, later in pairwise(seen)] == [True] * 4
    assert len({revision for _mine, revision in seen}) == 1
    with scope.platform("a test's words"):
        ModerationWord.objects.create(word=f"平台{other.slug}").delete()
    assert revisions()[1] > seen[-1][1]
    raised = revisions()[0]
    shop.tenant.save()  # read before all of this
    assert revisions()[0] == raised


def test_the_person_is_known_to_wechat_by_an_open_id_of_the_tenants_mini_program(shop: Shop) -> None:
    program = make_mini_program(shop.tenant, secret="s")
    with scope.tenant(shop.tenant.pk):
        ModerationSettings.objects.create(tenant=shop.tenant, wechat=True)
        shop.tenant.refresh_from_db()
        stranger = screen(shop.tenant, shop.alice.user, "x")
        for app_id, openid in ((program.app_id, "o1"), ("wx-another-service", "o2")):
            WeChatIdentity.objects.create(tenant=shop.tenant, user=shop.alice.user, app_id=app_id, openid=openid)
        known = screen(shop.tenant, shop.alice.user, "x")
    assert stranger is not None
    assert known is not None
    [checker] = known.rules.checkers
    assert (checker.can_check(stranger.subject), checker.can_check(known.subject)) == (False, True)
    assert (known.subject.openid, known.subject.program) == ("o1", program)


def test_evidence_outlives_a_database_that_is_away(shop: Shop) -> None:
    shop.offer("m")
    add(shop, "禁")
    shop.tenant.refresh_from_db()
    with scope.tenant(shop.tenant.pk):
        turn = open_turn(tenant=shop.tenant, user=shop.alice.user, ask=Ask(message="hi"), language="en")
    assert dispatch_turn(turn)
    found = Evidence(direction="answer", source="tenant", category="other", action="block", word="禁", text="…禁")
    outcome = Outcome(
        text="shown", had_output=True, hidden="禁", stopped=MODERATED, refused=Refused.ANSWER, found=(found,)
    )
    spool.keep(turn, outcome)
    assert spool.settle() == 1
    [message] = shop.messages()
    assert message.failure is not None
    assert (message.state, message.failure["type"]) == ("cut", "answer_refused")
    assert hits(shop) == [("answer", "tenant", "block", "禁", "…禁")]


def test_another_tenants_evidence_is_not_seen(shop: Shop) -> None:
    add(shop, "禁")
    shop.tenant.refresh_from_db()
    with scope.tenant(shop.tenant.pk):
        screened = screen(shop.tenant, shop.alice.user, "禁")
        assert screened is not None
        with pytest.raises(ProductError):
            screened.refuse_blocked(shop.alice.user)
    assert len(hits(shop)) == 1
    assert hits(open_shop("http://127.0.0.1:1/v1")) == []
