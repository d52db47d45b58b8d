"""Attachments through a chat: what a model is given, what is held and charged, what is the same question."""

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connections, transaction
from django.utils import translation
from django.utils.translation import gettext
from pytest_django import DjangoAssertNumQueries, Settings

from billing import audit
from billing.holds import Usage
from chat import attachments, context
from chat.models import Attachment, Conversation
from chat.moderation.models import ModerationSettings, ModerationWord
from chat.tests.files import attach, picture
from chat.tests.test_endpoint import failure_of, price, receipt_of
from chat.tests.test_moderation import check_by, endpoint, hits, text_of  # noqa: F401  a fixture is among them
from chat.tests.test_socket import opened, until_end
from chat.tests.test_socket import say as say_on
from chat.tests.test_socket import text_of as text_on
from chat.turn import AlreadyAskedError, Ask, Outcome, Turn, close_turn, open_turn
from tenants import scope
from tenants.errors import ProductError
from tenants.table import Query, fetch, one_at_a_time
from tests.clients.raw import Reply
from tests.clients.raw import ask as ask_over_http
from tests.doubles.moderations import ModerationsDouble
from tests.shop import RETAIL, YUAN, Person, Shop, open_shop

pytestmark = pytest.mark.usefixtures("committed_db")

USAGE = Usage(prompt=10, cached=0, completion=5, source="upstream")
RED, GREEN, BLUE = (208, 32, 32), (32, 208, 32), (32, 32, 208)


@pytest.fixture
def shop(upstream_url: str) -> Shop:
    shop = open_shop(upstream_url)
    shop.offer("sees:900", image_tokens=1000, is_default=True)
    shop.offer("echo", image_tokens=0)
    return shop


def image(shop: Shop, colour: Any = RED, *, name: str = "a.png", width: int = 40) -> UUID:
    return attach(shop.alice.user, name, picture(width, 30, colour))


def text(shop: Shop, words: str = "春天", *, name: str = "notes.md") -> UUID:
    return attach(shop.alice.user, name, words.encode())


def say(shop: Shop, port: int, message: str, *ids: UUID, **parameters: str) -> Reply:
    named = {"attachments": ",".join(str(each) for each in ids)} if ids else {}
    return ask_over_http(port, shop.host, {"message": message, **named, **parameters}, token=shop.alice.token)


def ask(shop: Shop, message: str = "hi", *ids: UUID, person: Person | None = None, **fields: Any) -> Turn:
    asked = Ask(message=message, attachments=ids or None, **fields)
    with scope.tenant(shop.tenant.pk):
        return open_turn(tenant=shop.tenant, user=(person or shop.alice).user, ask=asked, language="en")


def answer(turn: Turn, said: str = "ok") -> Turn:
    close_turn(turn, Outcome(text=said, had_output=True, finish_reason="stop", usage=USAGE))
    return turn


def refusal(shop: Shop, message: str = "hi", *ids: UUID, **fields: Any) -> tuple[int, str, str]:
    with pytest.raises(ProductError) as refused:
        ask(shop, message, *ids, **fields)
    return refused.value.code, refused.value.type, refused.value.scope


def told(turn: Turn) -> list[Any]:
    """Return the prompt: of each message the text, and how many pictures are beside it."""
    found: list[Any] = []
    for message in turn.request.messages:
        content = message["content"]
        found.append(content if isinstance(content, str) else (content[0]["text"], len(content) - 1))
    return found


def shapes(turn: Turn) -> list[Any]:
    """Return the prompt: of each message the text, or the texts and pictures beside each other."""
    return [
        content
        if isinstance(content := message["content"], str)
        else [part["text"] if part["type"] == "text" else PICTURE for part in content]
        for message in turn.request.messages
    ]


def where(shop: Shop) -> dict[UUID, UUID | None]:
    """Return with which message each attachment was sent."""
    with scope.tenant(shop.tenant.pk):
        return dict(Attachment.objects.values_list("pk", "message_id"))


PICTURE = "(a picture)"
NOT_THERE = (404, "attachment_not_found", "attachments")
NOTE = "[The picture “{}” was attached here. It is left out.]\n\n"


# --- what the model sees, and what it costs ---


def test_a_model_sees_the_pictures_and_the_hold_covers_them(shop: Shop, chat_port: int) -> None:
    ids = image(shop, RED), image(shop, GREEN, name="b.png", width=50)
    reply = say(shop, chat_port, "what is this?", *ids)
    assert text_of(reply, mini=False) == "JPEG 40x30 red; JPEG 50x30 green; what is this?"
    receipt = receipt_of(reply)
    [hold], [message] = shop.holds(), shop.messages()
    usage = {"prompt_tokens": receipt["prompt_tokens"], "completion_tokens": receipt["completion_tokens"]}
    assert (usage["prompt_tokens"] > 1800, receipt["charge"]) == (True, str(price(RETAIL, usage)))
    # Two pictures at 1,000 tokens each are frozen, beside the text and the longest answer.
    assert hold.amount > 2000 * RETAIL[0] // 1_000_000 + 1000 * RETAIL[2] // 1_000_000
    assert (hold.charge, hold.charge < hold.amount) == (int(receipt["charge"]), True)
    assert (message.attachments, where(shop)) == (list(ids), dict.fromkeys(ids, message.pk))
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


@pytest.mark.parametrize("mini", ["0", "1"])
def test_a_text_stands_before_the_question_under_its_name(
    shop: Shop, chat_port: int, upstream_requests: Callable[[], list[dict[str, Any]]], mini: str
) -> None:
    reply = say(shop, chat_port, "sum it up", text(shop), model="echo", is_wxapp=mini)
    assert text_of(reply, mini=mini == "1") == '<file name="notes.md">\n春天\n</file>\n\nsum it up'
    assert upstream_requests()[-1]["messages"] == [
        {"role": "user", "content": '<file name="notes.md">\n春天\n</file>\n\nsum it up'}
    ]
    assert [message.question for message in shop.messages()] == ["sum it up"]
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


def test_a_socket_takes_them_as_a_list(shop: Shop, chat_port: int) -> None:
    ids = [str(image(shop, BLUE)), str(text(shop))]
    with opened(chat_port, shop) as connection:
        say_on(connection, op="send", message="look", attachments=ids)
        events = until_end(connection)
        say_on(connection, op="send", message="look", attachments=[str(uuid4())])
        refused = until_end(connection)[-1]
    assert text_on(events) == 'JPEG 40x30 blue; <file name="notes.md">\n春天\n</file>\n\nlook'
    assert (refused["code"], refused["type"]) == (404, "attachment_not_found")


def test_a_picture_that_is_not_covered_is_refused_before_the_model_is_called(
    shop: Shop, chat_port: int, upstream_requests: Callable[[], list[dict[str, Any]]]
) -> None:
    poor = shop.person(cash=1500)
    mine = attach(poor.user, "a.png", picture())
    asked = len(upstream_requests())
    parameters = {"message": "x", "attachments": str(mine)}
    failure = failure_of(ask_over_http(chat_port, shop.host, parameters, token=poor.token))
    assert (failure["code"], failure["type"], len(upstream_requests())) == (101, "balance_short", asked)
    # It waits, and goes along once there is money.
    assert (where(shop), shop.messages(), shop.holds()) == ({mine: None}, [], [])
    assert receipt_of(ask_over_http(chat_port, shop.host, {"message": "x"}, token=poor.token))
    shop.credit(poor, YUAN)
    assert receipt_of(ask_over_http(chat_port, shop.host, parameters, token=poor.token))
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


def test_a_model_that_takes_none_says_so_before_anything_is_held(shop: Shop, chat_port: int) -> None:
    mine = image(shop)
    for mini in ("0", "1"):
        failure = failure_of(say(shop, chat_port, "x", mine, model="echo", is_wxapp=mini))
        assert {name: failure[name] for name in ("code", "type", "scope", "action")} == {
            "code": 10001,
            "type": "images_not_taken",
            "scope": "attachments",
            "action": "choose_model",
        }
    assert (where(shop), shop.messages(), shop.holds()) == ({mine: None}, [], [])


def test_an_answer_without_usage_is_reckoned_with_its_pictures(shop: Shop) -> None:
    turn = ask(shop, "x", image(shop))
    ending = close_turn(turn, Outcome(text="ok", had_output=True, finish_reason="stop"))
    assert ending.receipt is not None
    assert (ending.receipt["usage_source"], 1000 < ending.receipt["prompt_tokens"] < 1020) == ("estimate", True)
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


def test_what_attachments_cost_in_queries(shop: Shop, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    answer(ask(shop))
    ids = [image(shop, RED, name=f"{n}.png") for n in range(3)]
    with django_assert_num_queries(5 + 4):  # found, sent after the question, read; it goes by itself
        first = ask(shop, "x", *ids)
    answer(first)
    later = [text(shop, f"{n}", name=f"{n}.md") for n in range(3)]
    with django_assert_num_queries(5 + 5):  # and what was attached in the conversation before
        ask(shop, "y", *later, conversation=str(first.conversation_id))


# --- the same question, asked again, edited ---


def test_a_key_stands_for_a_question_with_its_attachments(shop: Shop) -> None:
    mine, other = image(shop), image(shop, GREEN, name="b.png")
    turn = ask(shop, "x", mine, client_msg_id="k")
    with pytest.raises(AlreadyAskedError) as known:
        ask(shop, "x", mine, client_msg_id="k")
    assert known.value.message.pk == turn.message_id
    for ids in ((), (other,), (mine, other), (other, mine)):
        assert refusal(shop, "x", *ids, client_msg_id="k")[:2] == (10001, "client_msg_id_reused")
    assert (len(shop.holds()), where(shop)) == (1, {mine: turn.message_id, other: None})


def test_what_is_asked_again_or_edited_keeps_them(shop: Shop) -> None:
    mine, notes, other = image(shop), text(shop), image(shop, GREEN, name="b.png")
    first = answer(ask(shop, "one", mine, notes))
    again = answer(ask(shop, "", regenerate=str(first.message_id)))
    edited = answer(ask(shop, "one, edited", edit=str(again.message_id)))
    changed = answer(ask(shop, "other", mine, other, edit=str(edited.message_id)))
    asked = Ask(message="none", edit=str(edited.message_id), attachments=())
    with scope.tenant(shop.tenant.pk):
        without = answer(open_turn(tenant=shop.tenant, user=shop.alice.user, ask=asked, language="en"))
    quote = '<file name="notes.md">\n春天\n</file>\n\n'
    assert [told(turn) for turn in (first, again, edited, changed, without)] == [
        [(f"{quote}one", 1)],
        [(f"{quote}one", 1)],
        [(f"{quote}one, edited", 1)],
        [("other", 2)],
        ["none"],
    ]
    assert [message.attachments for message in shop.messages()] == [
        [mine, notes],
        [mine, notes],
        [mine, notes],
        [mine, other],
        [],
    ]
    assert where(shop) == {mine: first.message_id, notes: first.message_id, other: changed.message_id}
    assert refusal(shop, "", regenerate=str(first.message_id), model="echo") == (
        10001,
        "images_not_taken",
        "attachments",
    )


def test_only_ones_own_of_this_conversation_are_sent(shop: Shop) -> None:
    theirs = open_shop("http://127.0.0.1:1/v1")
    foreign = image(theirs)
    bob = shop.person(cash=YUAN)
    bobs, mine = attach(bob.user, "b.png", picture()), image(shop)
    turn = answer(ask(shop, "x", mine))
    assert [refusal(shop, "y", each) for each in (foreign, bobs, uuid4(), mine)] == [NOT_THERE] * 4
    assert refusal(shop, "y", bobs, conversation=str(turn.conversation_id)) == NOT_THERE
    answer(ask(shop, "y", mine, conversation=str(turn.conversation_id)))
    with scope.tenant(shop.tenant.pk):
        Conversation.objects.update(deleted_at="2026-01-01T00:00Z")
    assert refusal(shop, "z", mine) == NOT_THERE
    assert (len(shop.messages()), len(shop.holds())) == (2, 2)


def test_two_questions_at_once_do_not_both_have_it(shop: Shop) -> None:
    mine = image(shop)
    barrier, outcomes = threading.Barrier(4), list[str]()

    def send() -> None:
        from django.db import connections  # noqa: PLC0415  this thread's

        barrier.wait()
        try:
            ask(shop, "x", mine)
            outcomes.append("sent")
        except ProductError as refused:
            outcomes.append(refused.type)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["attachment_not_found"] * 3 + ["sent"]
    [message] = shop.messages()
    assert (where(shop), len(shop.holds()), message.attachments) == ({mine: message.pk}, 1, [mine])


def test_a_picture_that_is_erased_while_it_is_asked_of_again_is_not_there(shop: Shop, settings: Settings) -> None:
    settings.MAX_ANSWERS_PER_USER = 9
    turn, refused = answer(ask(shop, "x", image(shop))), list[Any]()

    def again() -> None:
        try:
            refused.append(refusal(shop, "", regenerate=str(turn.message_id)))
        finally:
            connections.close_all()

    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = %(user)s"
    asking = threading.Thread(target=again)
    with scope.tenant(shop.tenant.pk), transaction.atomic():
        fetch(one_at_a_time("chat_message_running", shop.alice.user.pk))
        asking.start()
        while not fetch(Query(waiting, {"user": shop.alice.user.pk}, lambda rows: rows[0][0])):
            time.sleep(0.01)
        attachments.forget_of(turn.message_id)
    asking.join()
    assert refused == [NOT_THERE]
    assert len(shop.messages()) == 1


# --- what stands before a question ---


def test_an_earlier_picture_that_is_erased_meanwhile_is_left_out(shop: Shop) -> None:
    ids = image(shop), image(shop, GREEN, name="b.png")
    with scope.tenant(shop.tenant.pk):
        parts = [attachments.picture_part(file) for file in attachments.find_for(user_id=shop.alice.user.pk, ids=ids)]
        Attachment.objects.filter(pk=ids[0]).delete()
        said: dict[str, Any] = {"role": "user", "content": [{"type": "text", "text": "what is this?"}, *parts]}
        prompt = [said, {"role": "assistant", "content": "two"}, {"role": "user", "content": "and now?"}]
        attachments.with_pictures(prompt)
    [text, left] = prompt[0]["content"]
    assert (text["text"], left["image_url"]["url"][:23]) == ("what is this?", "data:image/jpeg;base64,")


def test_earlier_pictures_are_seen_by_models_that_see(shop: Shop, chat_port: int) -> None:
    first = answer(ask(shop, "one", image(shop), text(shop)))
    conversation = str(first.conversation_id)
    quote = '<file name="notes.md">\n春天\n</file>\n\n'
    assert told(ask(shop, "two", conversation=conversation)) == [(f"{quote}one", 1), "ok", "two"]
    blind = ask(shop, "three", conversation=conversation, parent=str(first.message_id), model="echo")
    assert told(blind) == [NOTE.format("a.png") + f"{quote}one", "ok", "three"]


def test_the_latest_pictures_are_sent_as_far_as_there_is_room(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = ""
    for n in range(4):
        turn = answer(ask(shop, f"q{n}", image(shop, name=f"{n}.png"), conversation=conversation))
        conversation = str(turn.conversation_id)

    def sent(**fields: Any) -> list[Any]:
        return told(ask(shop, "last", image(shop, name=f"{uuid4()}.png"), conversation=conversation, **fields))[::2]

    def left_out(n: int) -> str:
        return NOTE.format(f"{n}.png") + f"q{n}"

    assert sent(parent=str(turn.message_id)) == [*((f"q{n}", 1) for n in range(4)), ("last", 1)]
    # 6,000 tokens: half is for the answer; the question's picture and one before it have room.
    shop.offer("small", image_tokens=1000, context_window=6000, max_output_tokens=3000)
    wanted = [left_out(0), left_out(1), left_out(2), ("q3", 1), ("last", 1)]
    assert sent(model="small", parent=str(turn.message_id)) == wanted
    monkeypatch.setattr(context, "MOST_PICTURES", 3)
    wanted = [left_out(0), left_out(1), ("q2", 1), ("q3", 1), ("last", 1)]
    assert sent(parent=str(turn.message_id)) == wanted


def test_an_earlier_text_without_room_is_named_only_and_one_of_the_question_refused(shop: Shop) -> None:
    long = "spring " * 3500
    first = answer(ask(shop, "one", text(shop, long)))
    conversation = str(first.conversation_id)
    shop.offer("narrow", context_window=4000, max_output_tokens=1000)
    assert told(ask(shop, "two", conversation=conversation, model="narrow")) == [
        "[The file “notes.md” was attached here. It is left out.]\n\none",
        "ok",
        "two",
    ]
    assert refusal(shop, "x", text(shop, long, name="again.md"), model="narrow")[:2] == (10001, "message_too_long")


# --- without words ---


@pytest.mark.parametrize("mini", ["0", "1"])
def test_a_picture_needs_no_words(
    shop: Shop, chat_port: int, upstream_requests: Callable[[], list[dict[str, Any]]], mini: str
) -> None:
    mine = image(shop)
    reply = say(shop, chat_port, "", mine, is_wxapp=mini, client_msg_id="k")
    assert text_of(reply, mini=mini == "1") == "JPEG 40x30 red; "
    [sent] = upstream_requests()[-1]["messages"]
    assert [part["type"] for part in sent["content"]] == ["image_url"]
    again = say(shop, chat_port, " ", mine, is_wxapp=mini, client_msg_id="k")
    assert text_of(again, mini=mini == "1") == "JPEG 40x30 red; "
    [message] = shop.messages()
    assert (message.question, message.attachments, where(shop)) == ("", [mine], {mine: message.pk})
    other = failure_of(say(shop, chat_port, "", image(shop, GREEN), is_wxapp=mini, client_msg_id="k"))
    assert (other["code"], other["type"]) == (10001, "client_msg_id_reused")
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


def test_nor_does_it_over_a_socket(shop: Shop, chat_port: int) -> None:
    with opened(chat_port, shop) as connection:
        say_on(connection, op="send", attachments=[str(image(shop, BLUE))])
        assert text_on(until_end(connection)) == "JPEG 40x30 blue; "


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_a_conversation_that_begins_with_files_alone_is_called_after_them(shop: Shop, language: str) -> None:
    def begun(*ids: UUID) -> str:
        with scope.tenant(shop.tenant.pk):
            asked = Ask(attachments=ids)
            turn = open_turn(tenant=shop.tenant, user=shop.alice.user, ask=asked, language=language)
            return Conversation.objects.get(pk=str(turn.conversation_id)).title

    notes = text(shop, name="a plan for the whole of the year that begins in January.md")
    with translation.override(language):
        title = gettext("Picture")
    with translation.override("fr"):  # whoever asks, it is in the language of the request
        assert begun(image(shop), text(shop)) == title
    assert begun(notes) == "a plan for the whole of the year that begins in January.md"[:40]


def test_what_has_no_words_is_asked_again_edited_and_remembered(shop: Shop) -> None:
    mine, notes = image(shop), text(shop)
    first = answer(ask(shop, "", mine, notes))
    again = answer(ask(shop, "", regenerate=str(first.message_id)))
    fewer = answer(ask(shop, "", mine, edit=str(again.message_id)))
    worded = answer(ask(shop, "what?", edit=str(fewer.message_id)))
    later = ask(shop, "and now?", parent=str(again.message_id))
    blind = ask(shop, "and now?", parent=str(fewer.message_id), model="echo")
    quote = '<file name="notes.md">\n春天\n</file>'
    assert [shapes(turn) for turn in (first, again, fewer, worded, later, blind)] == [
        [[quote, PICTURE]],
        [[quote, PICTURE]],
        [[PICTURE]],
        [["what?", PICTURE]],
        [[quote, PICTURE], "ok", "and now?"],
        [NOTE.format("a.png").strip(), "ok", "and now?"],
    ]
    without = Ask(edit=str(fewer.message_id), attachments=())
    with scope.tenant(shop.tenant.pk), pytest.raises(ProductError) as refused:
        open_turn(tenant=shop.tenant, user=shop.alice.user, ask=without, language="en")
    assert (refused.value.code, refused.value.type) == (404, "message_not_found")
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


def test_one_without_words_whose_files_are_too_old_to_be_looked_at_is_not_empty(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answer(ask(shop, "", text(shop)))
    monkeypatch.setattr(attachments, "MOST_EARLIER", 0)
    assert shapes(ask(shop, "x", conversation=str(first.conversation_id))) == [
        "[A file was attached here. It is left out.]",
        "ok",
        "x",
    ]


def test_without_words_a_remote_checker_is_given_the_files_alone(
    shop: Shop,
    chat_port: int,
    endpoint: ModerationsDouble,  # noqa: F811  the fixture
) -> None:
    check_by(shop, endpoint, when_away=ModerationSettings.WhenAway.REFUSE)
    endpoint.bad["nasty"] = "hate"
    assert text_of(say(shop, chat_port, "", image(shop)), mini=False) == "JPEG 40x30 red; "
    bad = text(shop, "a nasty file")
    failure = failure_of(say(shop, chat_port, "", bad, client_msg_id="k"))
    assert (failure["code"], failure["type"]) == (11000, "question_refused")
    assert [said["input"] for said in endpoint.asked if "png" in said["input"] or "md" in said["input"]] == [
        "a.png\n",
        "notes.md\na nasty file",
    ]
    again = failure_of(say(shop, chat_port, "", bad, client_msg_id="k"))
    assert (again["code"], again["type"]) == (11000, "question_refused")
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


# --- moderation ---


def test_a_files_words_are_the_questions_words(shop: Shop, chat_port: int) -> None:
    with scope.tenant(shop.tenant.pk):
        ModerationWord.objects.create(tenant=shop.tenant, word="违禁词")
        ModerationWord.objects.create(tenant=shop.tenant, word="屏蔽词", action="mask")
    masked = text(shop, "屏 蔽词请", name="屏蔽词.md")
    for each in (text(shop, "请讲违 禁词"), text(shop, "x", name="违禁词.txt")):
        failure = failure_of(say(shop, chat_port, "sum it up", each, model="echo"))
        assert (failure["code"], failure["type"]) == (11000, "question_refused")
    assert (shop.messages(), shop.holds(), len(hits(shop))) == ([], [], 2)
    for _again in range(2):
        reply = say(shop, chat_port, "x", masked, model="echo", client_msg_id="k")
        assert text_of(reply, mini=False) == '<file name="***.md">\n****请\n</file>\n\nx'
    with scope.tenant(shop.tenant.pk):
        row = Attachment.objects.get(pk=masked)
    assert (row.name, row.text, len(shop.messages())) == ("***.md", "****请", 1)


def test_a_remote_checker_is_given_the_files_and_what_it_refuses_is_erased(
    shop: Shop,
    chat_port: int,
    endpoint: ModerationsDouble,  # noqa: F811  the fixture
) -> None:
    check_by(shop, endpoint, when_away=ModerationSettings.WhenAway.REFUSE)
    endpoint.bad["nasty"] = "hate"
    mine = text(shop, "a nasty file"), image(shop)
    reply = say(shop, chat_port, "x", *mine, client_msg_id="k")
    failure = failure_of(reply)
    assert (failure["code"], failure["type"]) == (11000, "question_refused")
    [message] = shop.messages()
    assert [said["input"] for said in endpoint.asked] == ["x\n\nnotes.md\na nasty file\n\na.png\n"]
    assert (message.question, message.attachments, where(shop)) == ("", [], {})
    again = failure_of(say(shop, chat_port, "x", *mine, client_msg_id="k"))
    assert (again["code"], again["type"], shop.balance(shop.alice).cash) == (11000, "question_refused", 20 * YUAN)
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


# --- what is asked for ---


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"attachments": 1}, "invalid_parameter"),
        ({"attachments": {"id": 1}}, "invalid_parameter"),
        ({"attachments": [1]}, "invalid_parameter"),
        ({"attachments": "[1"}, "invalid_parameter"),
        ({"attachments": "nonsense"}, "attachment_not_found"),
        ({"attachments": ["", ""]}, "attachment_not_found"),
        ({"attachments": [str(UUID(int=n)) for n in range(5)]}, "too_many_attachments"),
        ({"message": "", "attachments": [str(UUID(int=1))]}, "attachment_not_found"),
        ({"message": "", "attachments": []}, "message_missing"),
        ({"message": "", "regenerate": str(UUID(int=1)), "attachments": []}, "invalid_parameter"),
    ],
)
def test_what_is_no_list_of_ids_is_refused(shop: Shop, chat_port: int, given: dict[str, Any], kind: str) -> None:
    reply = ask_over_http(chat_port, shop.host, {"message": "x", **given}, token=shop.alice.token)
    assert (failure_of(reply)["type"], shop.messages()) == (kind, [])
