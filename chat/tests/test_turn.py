"""A turn's transactions: how many queries they cost, what they keep, what they send upstream."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries

from billing import holds
from billing.holds import Usage
from billing.tests.test_concurrency import together
from chat.events import FailureKind
from chat.findings import Place, find
from chat.generation import Generation
from chat.models import Conversation, Message, Role
from chat.turn import AlreadyAskedError, Ask, Outcome, Turn, close_turn, dispatch_turn, open_turn
from chat.upstream import client
from tenants import scope
from tenants.errors import ProductError
from tests.shop import Shop, open_shop

USAGE = Usage(prompt=10, cached=0, completion=5, source="upstream")


@pytest.fixture
def shop(committed_db: None) -> Shop:
    shop = open_shop("http://127.0.0.1:1/v1")
    shop.offer("m")
    return shop


def ask(shop: Shop, message: str = "hi", **fields: Any) -> Turn:
    with scope.tenant(shop.tenant.pk):
        return open_turn(tenant=shop.tenant, user=shop.alice.user, ask=Ask(message=message, **fields), language="en")


def answer(turn: Turn, text: str = "hello") -> None:
    assert dispatch_turn(turn)
    close_turn(turn, Outcome(text=text, had_output=True, finish_reason="stop", usage=USAGE))


def test_what_one_chat_costs_in_queries(shop: Shop, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    answer(ask(shop))  # the first one makes the tenant's accounts
    with django_assert_num_queries(OPENING):
        turn = ask(shop)
    with django_assert_num_queries(DISPATCH):
        assert dispatch_turn(turn)
    with django_assert_num_queries(CLOSING):
        close_turn(turn, Outcome(text="hello", had_output=True, finish_reason="stop", usage=USAGE))


# With COMMIT, and BEGIN, which goes with the first. Raise these only with a reason.
OPENING = 5
DISPATCH = 3
CLOSING = 5


def test_history_does_not_add_queries(shop: Shop, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    conversation = str(ask(shop).conversation_id)
    for count in (1, 6):
        for _ in range(count):
            answer(ask(shop, conversation=conversation))
        with django_assert_num_queries(OPENING):  # what is read is read by one round trip
            turn = ask(shop, conversation=conversation)
        answer(turn)


def test_a_role_speaks_first_and_stays_with_its_conversation(shop: Shop) -> None:
    with scope.tenant(shop.tenant.pk):
        Role.objects.create(tenant=shop.tenant, slug="poet", name="Poet", instructions="Answer in verse.")
        Role.objects.create(tenant=shop.tenant, slug="clerk", name="Clerk", instructions="Answer dryly.")
    first = ask(shop, role="poet")
    assert list(first.request.messages) == [
        {"role": "system", "content": "Answer in verse."},
        {"role": "user", "content": "hi"},
    ]
    again = ask(shop, conversation=str(first.conversation_id))
    assert again.request.messages[0] == {"role": "system", "content": "Answer in verse."}
    other = ask(shop, conversation=str(first.conversation_id), role="clerk")
    assert other.request.messages[0] == {"role": "system", "content": "Answer dryly."}


def test_a_default_role_serves_where_none_is_named(shop: Shop) -> None:
    with scope.tenant(shop.tenant.pk):
        Role.objects.create(tenant=shop.tenant, slug="d", name="D", instructions="Be kind.", is_default=True)
    assert ask(shop).request.messages[0] == {"role": "system", "content": "Be kind."}


def contents(turn: Turn) -> list[str]:
    return [message["content"] for message in turn.request.messages]


def test_a_question_asked_again_has_the_context_that_it_had(shop: Shop) -> None:
    first = ask(shop, "one")
    answer(first, "1")
    second = ask(shop, "two", conversation=str(first.conversation_id))
    answer(second, "2")
    again = ask(shop, "", regenerate=str(second.message_id))
    answer(again, "2 again")
    edited = ask(shop, "two, edited", edit=str(second.message_id))
    answer(edited, "2 edited")
    anew = ask(shop, "", regenerate=str(first.message_id))
    answer(anew, "1 anew")
    assert [contents(turn) for turn in (again, edited, anew)] == [
        ["one", "1", "two"],
        ["one", "1", "two, edited"],
        ["one"],
    ]
    assert [(message.question, message.answer, message.parent_id) for message in shop.messages()] == [
        ("one", "1", None),
        ("two", "2", first.message_id),
        ("two", "2 again", first.message_id),
        ("two, edited", "2 edited", first.message_id),
        ("one", "1 anew", None),
    ]
    assert {message.conversation_id for message in shop.messages()} == {first.conversation_id}


def test_a_conversation_goes_on_where_it_was_last_or_where_it_is_told(shop: Shop) -> None:
    first = ask(shop, "one")
    answer(first, "1")
    conversation = str(first.conversation_id)
    second = ask(shop, "two", conversation=conversation)
    answer(second, "2")
    other = ask(shop, "two, edited", edit=str(second.message_id))
    answer(other, "2 edited")
    last = ask(shop, "three", conversation=conversation)
    assert contents(last) == ["one", "1", "two, edited", "2 edited", "three"]
    back = ask(shop, "three", parent=str(second.message_id))
    assert contents(back) == ["one", "1", "two", "2", "three"]
    assert back.conversation_id == first.conversation_id
    root = ask(shop, "anew", conversation=conversation, parent="root")
    assert contents(root) == ["anew"]
    with scope.tenant(shop.tenant.pk):
        assert Message.objects.get(pk=root.message_id).parent_id is None


def test_questions_asked_at_once_follow_one_another(shop: Shop) -> None:
    first = ask(shop, "one")
    answer(first, "1")
    conversation = str(first.conversation_id)
    with scope.tenant(shop.tenant.pk):
        before, _beside = find(Place(model="m", conversation=conversation), tenant_id=shop.tenant.pk)
        asked = Ask(message="at once", model="m", conversation=conversation)
        turns = [
            open_turn(tenant=shop.tenant, user=shop.alice.user, ask=asked, language="en", findings=before)
            for _ in range(2)
        ]
    assert [contents(turn) for turn in turns] == [["one", "1", "at once"]] * 2
    together([partial(ask, shop, "more", conversation=conversation) for _ in range(6)])
    rows = shop.messages()
    # A chain, in the order of time.
    assert [row.parent_id for row in rows] == [None, *(row.id for row in rows[:-1])]
    assert [row.id for row in rows[:3]] == [first.message_id, *(turn.message_id for turn in turns)]


def test_what_replaces_a_message_goes_to_its_model_unless_another_is_named(shop: Shop) -> None:
    shop.offer("other")
    first = ask(shop, "one", model="other")
    answer(first, "1")
    assert ask(shop, "", regenerate=str(first.message_id)).model == "other"
    assert ask(shop, "one!", edit=str(first.message_id), model="m").model == "m"


def test_a_key_holds_for_what_is_asked_again_too(shop: Shop) -> None:
    first = ask(shop, "one")
    answer(first, "1")
    again = ask(shop, "", regenerate=str(first.message_id), client_msg_id="k")
    with pytest.raises(AlreadyAskedError) as known:
        ask(shop, "", regenerate=str(first.message_id), client_msg_id="k")
    assert known.value.message.pk == again.message_id
    assert len(shop.holds()) == 2


def test_a_question_that_was_taken_away_cannot_be_asked_again(shop: Shop) -> None:
    turn = ask(shop, "one")
    with scope.tenant(shop.tenant.pk):
        Message.objects.filter(pk=turn.message_id).update(question="")
    with pytest.raises(ProductError, match="message_not_found"):
        ask(shop, "", regenerate=str(turn.message_id))
    assert ask(shop, "two", edit=str(turn.message_id)).conversation_id == turn.conversation_id


@pytest.mark.parametrize("parameter", ["regenerate", "edit", "parent"])
def test_only_ones_own_messages_of_that_conversation_are_followed_or_replaced(shop: Shop, parameter: str) -> None:
    mine, elsewhere = ask(shop, "mine"), ask(shop, "another conversation")
    theirs = open_shop("http://127.0.0.1:1/v1")
    theirs.offer("m")
    foreign = ask(theirs, "a secret of theirs")
    mallory = shop.person(cash=1_000_000)
    for user, target, more in (
        (mallory.user, mine.message_id, {}),
        (shop.alice.user, foreign.message_id, {}),
        (shop.alice.user, elsewhere.message_id, {"conversation": str(mine.conversation_id)}),
        (shop.alice.user, "nonsense", {}),
        *([] if parameter == "parent" else [(shop.alice.user, "root", {})]),
    ):
        text = "" if parameter == "regenerate" else "x"
        fields: dict[str, Any] = {parameter: str(target), **more}
        asked = Ask(message=text, **fields)
        with scope.tenant(shop.tenant.pk), pytest.raises(ProductError) as refused:
            open_turn(tenant=shop.tenant, user=user, ask=asked, language="en")
        assert (refused.value.type, refused.value.scope) == ("message_not_found", parameter)
    assert len(shop.messages()) == 2


def test_a_failed_turn_is_no_context(shop: Shop) -> None:
    failed = ask(shop, message="lost")
    dispatch_turn(failed)
    ending = close_turn(failed, Outcome(text="", had_output=False, failure=FailureKind.OVERLOAD))
    assert ending.failure is not None
    turn = ask(shop, message="next", conversation=str(failed.conversation_id))
    assert list(turn.request.messages) == [{"role": "user", "content": "next"}]


def test_a_refused_turn_leaves_no_row(shop: Shop) -> None:
    poor = shop.person()
    with scope.tenant(shop.tenant.pk), pytest.raises(Exception, match="balance_short"):
        open_turn(tenant=shop.tenant, user=poor.user, ask=Ask(message="x"), language="en")
    with scope.tenant(shop.tenant.pk):
        assert Conversation.objects.count() == Message.objects.count() == 0


def test_a_turn_whose_hold_has_ended_is_not_sent_upstream_and_not_charged(shop: Shop) -> None:
    turn = ask(shop)
    with scope.tenant(shop.tenant.pk):
        assert holds.void(tenant_id=shop.tenant.pk, hold_id=turn.message_id, reason="expired")
    assert not dispatch_turn(turn)
    ending = close_turn(turn, Outcome(text="late", had_output=True, finish_reason="stop", usage=USAGE))
    assert ending.receipt is None
    assert ending.failure is not None
    assert ending.failure.type == "turn_expired"
    assert [message.state for message in shop.messages()] == ["failed"]
    assert shop.balance(shop.alice).pending == 0


def test_the_key_of_an_upstream_is_not_in_a_turns_repr(shop: Shop) -> None:
    assert shop.account.api_key not in repr(ask(shop))


def test_a_turn_that_was_long_in_starting_looks_at_its_hold_once_more(shop: Shop) -> None:
    turn = ask(shop)
    [hold] = shop.holds()
    assert hold.dispatched_at == hold.created_at
    assert holds.void(tenant_id=shop.tenant.pk, hold_id=turn.message_id, reason="a frozen process")

    def outcome_of(turn: Turn) -> Outcome:
        async def run() -> Outcome:
            generation = Generation(turn)
            await generation.run()
            await client.close()
            return generation.outcome()

        return asyncio.run(run())

    assert outcome_of(replace(turn, dispatched_until=0.0)).failure is FailureKind.TIMEOUT
    # Nobody listens at the account's address: the upstream was called.
    assert outcome_of(turn).failure is FailureKind.NETWORK
