"""Checkpoints of many answers by one statement: what is kept, and what is told of those that are over."""

from dataclasses import replace
from threading import Event, Thread
from typing import Any

import pytest
from django.db import connection, transaction
from pytest_django import DjangoAssertNumQueries

from billing import holds
from billing.models import Hold
from billing.pricing import Quantities
from chat.models import Message
from chat.turn import Ask, Checkpoint, Outcome, Turn, checkpoint_turns, dispatch_turn, note_stop, open_turn
from tenants import scope
from tests.programs import wait_for
from tests.shop import Shop, open_shop


@pytest.fixture
def shops(committed_db: None) -> list[Shop]:
    shops = [open_shop("http://127.0.0.1:1/v1") for _ in range(2)]
    for shop in shops:
        shop.offer("m")
    return shops


def begun(shop: Shop) -> Turn:
    with scope.tenant(shop.tenant.pk):
        turn = open_turn(tenant=shop.tenant, user=shop.alice.user, ask=Ask(message="hi"), language="en")
    assert dispatch_turn(turn)
    return turn


def so_far(turn: Turn, text: str, completion: int) -> Checkpoint:
    quantities = Quantities(prompt=9, completion=completion)
    return Checkpoint(turn=turn, outcome=Outcome(text=text, had_output=True), quantities=quantities)


def kept(shop: Shop, turn: Turn) -> tuple[Any, ...]:
    [message] = [message for message in shop.messages() if message.pk == turn.message_id]
    [hold] = [hold for hold in shop.holds() if hold.pk == turn.message_id]
    return message.answer, hold.checkpoint_prompt, hold.checkpoint_completion, hold.heartbeat_at is not None


def test_answers_of_several_tenants_are_kept_by_one_statement(
    shops: list[Shop], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    one, two = shops
    turns = [begun(one), begun(one), begun(two)]
    before = [hold.expires_at for hold in two.holds()]
    with django_assert_num_queries(1):
        assert checkpoint_turns([so_far(turn, f"text {at} %s ;", at) for at, turn in enumerate(turns, 1)]) == {}
    assert kept(one, turns[0]) == ("text 1 %s ;", 9, 1, True)
    assert kept(one, turns[1]) == ("text 2 %s ;", 9, 2, True)
    assert kept(two, turns[2]) == ("text 3 %s ;", 9, 3, True)
    assert [hold.expires_at for hold in two.holds()] > before


def test_an_answer_is_kept_under_its_own_tenant_only(shops: list[Shop]) -> None:
    one, two = shops
    turn = begun(one)
    stray = replace(turn, tenant_id=two.tenant.pk)
    assert checkpoint_turns([so_far(stray, "not mine", 5)]) == {turn.message_id: "expired"}
    assert kept(one, turn) == ("", 0, 0, False)


def test_one_that_is_over_or_unwanted_is_told_apart_and_keeps_none_of_the_others(shops: list[Shop]) -> None:
    one, two = shops
    ended, unwanted, running = begun(one), begun(one), begun(two)
    holds.void(tenant_id=one.tenant.pk, hold_id=ended.message_id, reason="test")
    with scope.tenant(one.tenant.pk):
        assert note_stop(Message.objects.get(pk=unwanted.message_id))
    told = checkpoint_turns([so_far(turn, "text", 4) for turn in (ended, unwanted, running)])
    assert told == {ended.message_id: "expired", unwanted.message_id: "stopped"}
    # The text of one that was not charged goes when it is closed.
    assert kept(one, ended)[1:] == (0, 0, False)
    # What it had used is charged, should this process die before it ends it.
    assert kept(one, unwanted) == ("", 9, 4, True)
    assert kept(two, running) == ("text", 9, 4, True)


def test_a_hold_in_someones_hands_is_waited_for_by_itself(shops: list[Shop]) -> None:
    one, two = shops
    busy, running = begun(one), begun(two)
    locked, go = Event(), Event()

    def hold_it() -> None:
        with scope.tenant(one.tenant.pk), transaction.atomic():
            Hold.objects.select_for_update().get(pk=busy.message_id)
            locked.set()
            go.wait(60)
        connection.close()

    def keep() -> None:
        told.append(checkpoint_turns([so_far(busy, "one", 1), so_far(running, "two", 2)]))
        connection.close()

    told: list[Any] = []
    threads = [Thread(target=hold_it), Thread(target=keep)]
    threads[0].start()
    assert locked.wait(60)
    threads[1].start()
    # The other one does not wait.
    wait_for(lambda: kept(two, running)[0] == "two")
    assert (kept(one, busy)[1:3], told) == ((0, 0), [])
    go.set()
    for thread in threads:
        thread.join()
    assert (kept(one, busy), told) == (("one", 9, 1, True), [{}])
