"""A turn's transactions: how many queries they cost, what they keep, what they send upstream."""

from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries

from billing import holds
from billing.holds import Usage
from chat.events import FailureKind
from chat.models import Conversation, Message, Role
from chat.turn import Ask, Outcome, Turn, close_turn, dispatch_turn, open_turn
from tenants import scope
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


# With BEGIN, COMMIT and the savepoint around the hold. Raise these only with a reason.
OPENING = 16
DISPATCH = 3
CLOSING = 18


def test_history_does_not_add_queries(shop: Shop, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    conversation = str(ask(shop).conversation_id)
    for count in (1, 6):
        for _ in range(count):
            answer(ask(shop, conversation=conversation))
        with django_assert_num_queries(OPENING + 1):  # finds the conversation, its turns; makes none
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
