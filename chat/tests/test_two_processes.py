"""An answer that one process generates, read and stopped through another; and what is left when either dies."""

import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from urllib.error import HTTPError

import pytest
import redis
from django.db import connections
from pytest_django.plugin import DjangoDbBlocker

from billing.audit import audit_tenant
from billing.models import Hold
from billing.tasks import record_usage
from chat.models import Message
from chat.tests.test_survival import leave_to_the_sweep, wait_for
from tests.clients.phone import Phone
from tests.servers import free_port, web_process
from tests.shop import YUAN, Person, Shop, open_shop

pytestmark = pytest.mark.usefixtures("committed_db")

NUMBERS = "".join(f"{number} " for number in range(1, 61))


@pytest.fixture(scope="module")
def doors(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[tuple[int, int]]:
    """Run two web processes on this process's database, one under each server; yield their ports."""
    with django_db_blocker.unblock(), ExitStack() as stack:
        yield (
            stack.enter_context(web_process("uvicorn"))[0],
            stack.enter_context(web_process("daphne"))[0],
        )


@pytest.fixture
def shop(upstream_url: str) -> Shop:
    return open_shop(upstream_url)


def phone(shop: Shop, port: int, *, is_wxapp: bool = True, person: Person | None = None) -> Phone:
    return Phone(port=port, host=shop.host, token=(person or shop.alice).token, is_wxapp=is_wxapp)


def in_threads(*works: Callable[[], None]) -> None:
    """Run all at once, and wait for all; what one raises is raised."""
    faults: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as fault:  # noqa: BLE001  raised below
            faults.append(fault)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for fault in faults:
        raise fault


def stop(port: int, shop: Shop, message: Message, person: Person | None = None) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/chat/messages/{message.pk}/stop",
        method="POST",
        headers={"Host": shop.host, "Authorization": f"Bearer {(person or shop.alice).token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  as above
            return dict(json.load(answer))
    except HTTPError as refused:
        with refused:
            return dict(json.load(refused))


def assert_one_charge(shop: Shop) -> Hold:
    """One hold, posted, and everything else of the books."""
    [hold] = shop.holds()
    assert hold.state == Hold.State.POSTED
    assert hold.charge == 20 * YUAN - shop.balance(shop.alice).cash
    assert shop.balance(shop.alice).pending == 0
    record_usage(str(hold.pk), shop.tenant.pk)
    assert audit_tenant(tenant_id=shop.tenant.pk) == []
    return hold


@pytest.mark.parametrize("is_wxapp", [True, False])
@pytest.mark.parametrize("there", [0, 1])
def test_an_answer_is_resumed_in_another_process_while_it_is_written(
    shop: Shop, doors: tuple[int, int], there: int, *, is_wxapp: bool
) -> None:
    offer = shop.offer("pace:60:100")
    reader = phone(shop, doors[1 - there], is_wxapp=is_wxapp)
    reader.ask(message="x", model=offer.slug, cut_after=900)
    assert not reader.ended
    begun = reader.text
    reader.port = doors[there]
    reader.resume(cut_after=500)  # more than one line of text, but the answer's end is far
    [message] = shop.messages()
    # The text is ahead of the row, which has what the last checkpoint kept: it came from the other process.
    assert message.state == Message.State.RUNNING
    assert len(reader.text) > max(len(begun), len(message.answer))
    reader.resume()
    assert (reader.text, reader.ended, reader.failure) == (NUMBERS, True, {})
    [message] = shop.messages()
    assert (message.answer, message.receipt) == (NUMBERS, reader.receipt)
    assert_one_charge(shop)


def test_the_same_key_in_two_processes_is_one_answer_and_one_charge(
    shop: Shop, doors: tuple[int, int], upstream_requests: Callable[[], Any]
) -> None:
    shop.offer("pace:60:20")
    question = f"once {shop.host}"
    readers = [phone(shop, port, is_wxapp=is_wxapp) for port in doors for is_wxapp in (True, False) for _ in range(3)]
    in_threads(*(lambda one=one: one.ask(message=question, client_msg_id="k") for one in readers))
    assert {reader.text for reader in readers} == {NUMBERS}
    assert len({reader.message_id for reader in readers}) == 1
    assert {reader.receipt["charge"] for reader in readers} == {str(assert_one_charge(shop).charge)}
    assert len([body for body in upstream_requests() if body["messages"][-1]["content"] == question]) == 1


@pytest.mark.parametrize("there", [0, 1])
def test_an_answer_is_stopped_from_another_process(
    shop: Shop, doors: tuple[int, int], there: int, scripted_upstream: Any
) -> None:
    offer = shop.offer("pace:400:20")
    question = f"stop {shop.host}"
    here, elsewhere = phone(shop, doors[there]), phone(shop, doors[1 - there], is_wxapp=False)

    def stop_it() -> None:
        [message] = wait_for(shop.messages)
        elsewhere.message_id = str(message.pk)
        elsewhere.resume(cut_after=1200)
        assert stop(doors[1 - there], shop, message)["data"] == {"message_id": str(message.pk), "running": True}
        elsewhere.resume()

    in_threads(lambda: here.ask(message=question, model=offer.slug), stop_it)
    [message] = shop.messages()
    hold = assert_one_charge(shop)
    assert (message.state, message.failure, hold.reason) == (Message.State.CUT, None, "stopped")
    assert 0 < len(message.answer.split()) < 400
    for reader in (here, elsewhere):
        assert (reader.text, reader.ended, reader.failure) == (message.answer, True, {})
        assert (reader.receipt["reason"], reader.receipt["charge"]) == ("stopped", str(hold.charge))
    [seen] = [one for one in scripted_upstream.requests() if one.body["messages"][-1]["content"] == question]
    assert seen.left
    # Again, and where it has ended: nothing more happens.
    for port in doors:
        assert stop(port, shop, message)["data"] == {"message_id": str(message.pk), "running": False}
    assert_one_charge(shop)


def test_a_stop_before_the_first_output_is_free(shop: Shop, doors: tuple[int, int]) -> None:
    offer = shop.offer("silent")
    reader = phone(shop, doors[0])

    def stop_it() -> None:
        wait_for(lambda: [hold for hold in shop.holds() if hold.dispatched_at])
        stop(doors[1], shop, shop.messages()[0])

    in_threads(lambda: reader.ask(message="x", model=offer.slug), stop_it)
    assert (reader.failure["type"], reader.failure["code"], reader.text) == ("answer_stopped", 0, "")
    assert [(hold.state, hold.reason) for hold in shop.holds()] == [("voided", "stopped")]
    assert shop.balance(shop.alice).cash == 20 * YUAN
    assert audit_tenant(tenant_id=shop.tenant.pk) == []


def test_nobody_stops_or_reads_the_answer_of_another(shop: Shop, upstream_url: str, doors: tuple[int, int]) -> None:
    shop.offer("pace:60:30")
    mallory, foreigner = shop.person(cash=YUAN), open_shop(upstream_url)
    reader = phone(shop, doors[0])

    def try_it() -> None:
        [message] = wait_for(shop.messages)
        for port in doors:
            refused = stop(port, shop, message, mallory)
            assert (refused["code"], refused["type"]) == (404, "message_not_found")
            assert stop(port, shop, message, foreigner.alice)["code"] == -1
            assert stop(port, foreigner, message, foreigner.alice)["code"] == 404
            spy = phone(shop, port, person=mallory)
            spy.message_id = str(message.pk)
            spy.resume()
            assert (spy.failure["code"], spy.text) == (404, "")

    in_threads(lambda: reader.ask(message="x"), try_it)
    assert (reader.text, shop.messages()[0].state) == (NUMBERS, Message.State.DONE)


def test_several_readers_in_both_processes_get_one_answer(shop: Shop, doors: tuple[int, int]) -> None:
    shop.offer("pace:60:30")
    first = phone(shop, doors[0])
    first.ask(message="x", cut_after=200)
    readers = [phone(shop, port, is_wxapp=is_wxapp) for port in doors for is_wxapp in (True, False) for _ in range(4)]
    for offset, reader in enumerate(readers):
        reader.message_id, reader.text = first.message_id, NUMBERS[:offset]
    # One leaves early, which the others of its process do not notice.
    leaver = phone(shop, doors[1])
    leaver.message_id = first.message_id
    in_threads(*(reader.resume for reader in readers), lambda: leaver.resume(cut_after=300))
    assert {reader.text for reader in readers} == {NUMBERS}
    assert {json.dumps(reader.receipt, sort_keys=True) for reader in readers} == {
        json.dumps(shop.messages()[0].receipt, sort_keys=True)
    }
    assert_one_charge(shop)


@pytest.mark.parametrize("is_wxapp", [True, False])
def test_a_reader_is_told_the_end_of_an_answer_whose_process_was_killed(
    shop: Shop, doors: tuple[int, int], *, is_wxapp: bool
) -> None:
    offer = shop.offer("pace:400:50")
    reader = phone(shop, doors[1], is_wxapp=is_wxapp)
    with web_process("uvicorn") as (port, process):
        first = phone(shop, port)
        first.ask(message="x", model=offer.slug, cut_after=300)
        reader.message_id = first.message_id

        def kill_it() -> None:
            wait_for(lambda: [message for message in shop.messages() if message.answer])
            process.kill()
            process.wait()
            leave_to_the_sweep(shop)

        in_threads(reader.resume, kill_it)
    [message] = shop.messages()
    hold = assert_one_charge(shop)
    assert (message.state, hold.reason) == (Message.State.CUT, "interrupted")
    # What was told before the kill may be more than the last checkpoint kept; it is never less.
    assert reader.text.startswith(message.answer)
    assert (reader.failure["type"], reader.receipt) == ("answer_cut_short", message.receipt)


def test_a_terminated_process_drains_for_its_readers_in_others(shop: Shop, doors: tuple[int, int]) -> None:
    offer = shop.offer("pace:60:50")
    reader = phone(shop, doors[1])
    with web_process("uvicorn", DRAIN_SECONDS="20") as (port, process):
        first = phone(shop, port)
        first.ask(message="x", model=offer.slug, cut_after=300)
        reader.message_id = first.message_id

        def end_it() -> None:
            process.terminate()
            assert process.wait(30) in (0, -15)

        in_threads(reader.resume, end_it)
    assert (reader.text, reader.ended, reader.failure) == (NUMBERS, True, {})
    assert reader.receipt == shop.messages()[0].receipt
    assert_one_charge(shop)


def two_processes_without_redis(stack: ExitStack) -> tuple[int, int]:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    started = [stack.enter_context(web_process("uvicorn", REDIS_URL=nowhere)) for _ in range(2)]
    return started[0][0], started[1][0]


def test_without_redis_an_answer_is_followed_and_stopped_by_its_row(shop: Shop) -> None:
    shop.offer("pace:60:30", slug="short")
    shop.offer("pace:400:30", slug="long", max_output_tokens=400)
    with ExitStack() as stack:
        here, there = two_processes_without_redis(stack)
        first, second = phone(shop, here), phone(shop, there, is_wxapp=False)
        first.ask(message="x", model="short", cut_after=300)
        second.message_id = first.message_id
        second.resume()
        assert (second.text, second.ended, second.failure) == (NUMBERS, True, {})
        third = phone(shop, here)

        def stop_it() -> None:
            [message] = wait_for(lambda: [m for m in shop.messages() if m.offer_slug == "long" and m.answer])
            assert stop(there, shop, message)["data"]["running"]

        in_threads(lambda: third.ask(message="x", model="long"), stop_it)
    assert (third.ended, third.receipt["reason"]) == (True, "stopped")
    assert 0 < len(third.text.split()) < 400
    assert [hold.state for hold in shop.holds()] == ["posted", "posted"]


def test_a_follower_goes_on_when_redis_comes_back(shop: Shop, doors: tuple[int, int], settings: Any) -> None:
    """The subscriptions of both processes are cut in mid-answer: nothing of the text is lost."""
    offer = shop.offer("pace:200:20")
    first, reader = phone(shop, doors[0]), phone(shop, doors[1])
    first.ask(message="x", model=offer.slug, cut_after=300)
    reader.message_id = first.message_id

    def cut_them() -> None:
        with redis.Redis.from_url(settings.REDIS_URL) as client:
            for _ in range(5):
                time.sleep(0.4)
                client.client_kill_filter(_type="pubsub")

    in_threads(reader.resume, cut_them)
    assert reader.text == shop.messages()[0].answer
    assert len(reader.text.split()) == 200
    assert_one_charge(shop)


def limited(stack: ExitStack, **limits: Any) -> tuple[int, subprocess.Popen[bytes]]:
    return stack.enter_context(web_process("uvicorn", **limits))


def asked_at_once(shop: Shop, readers: list[Phone], *, model: str, refused: int) -> None:
    """Let all ask; once so many are refused and the answers of all others are under way, stop these.

    The model's answers do not end by themselves: they are all still counted when the last one asks.
    """

    def stop_them() -> None:
        wait_for(lambda: len([reader for reader in readers if reader.failure]) == refused)
        wait_for(lambda: len([message for message in shop.messages() if message.answer]) == len(readers) - refused)
        for reader in readers:
            for message in shop.messages():
                if reader.message_id == str(message.pk):
                    assert stop(reader.port, shop, message, replace(shop.alice, token=reader.token))["data"]["running"]

    in_threads(*(lambda one=one: one.ask(message="x", model=model) for one in readers), stop_them)


def test_a_process_takes_no_more_answers_than_it_may(shop: Shop) -> None:
    shop.offer("plain")
    endless = shop.offer("stalls:3")
    with ExitStack() as stack:
        port, _process = limited(stack, MAX_ANSWERS="3")
        readers = [phone(shop, port) for _ in range(12)]
        asked_at_once(shop, readers, model=endless.slug, refused=9)
        again = phone(shop, port)
        again.ask(message="x", model="plain")
    refused = [reader.failure for reader in readers if reader.failure]
    told = {(one["code"], one["type"], one["scope"], one["used"], one["limit"], one["action"]) for one in refused}
    assert (len(refused), told) == (9, {(102, "too_many_answers", "process", 3, 3, "wait")})
    assert all(one["reset_at"] for one in refused)
    assert [reader.text for reader in readers if not reader.failure] == ["1 2 3 "] * 3
    assert (again.ended, again.failure) == (True, {})
    assert len(shop.holds()) == 4


def test_a_full_process_still_tells_its_answers(shop: Shop) -> None:
    offer = shop.offer("pace:60:50")
    with ExitStack() as stack:
        port, _process = limited(stack, MAX_ANSWERS="1")
        readers = [phone(shop, port) for _ in range(4)]
        asking = {"message": "x", "client_msg_id": "k", "model": offer.slug}
        in_threads(*(lambda one=one: one.ask(**asking) for one in readers))
    # Which of them is first is chance; one that came while the first was being admitted may have been refused.
    assert {reader.text for reader in readers if not reader.failure} == {NUMBERS}
    assert len(shop.holds()) == 1


def test_a_user_has_no_more_answers_running_than_one_may_in_all_processes(shop: Shop) -> None:
    endless = shop.offer("stalls:3")
    bob = shop.person(cash=YUAN)
    with ExitStack() as stack:
        ports = [limited(stack, MAX_ANSWERS_PER_USER="2")[0] for _ in range(2)]
        readers = [phone(shop, port) for port in ports for _ in range(5)]
        other = phone(shop, ports[0], person=bob)
        asked_at_once(shop, [*readers, other], model=endless.slug, refused=8)
    refused = [reader.failure for reader in readers if reader.failure]
    told = {(one["code"], one["type"], one["scope"], one["used"], one["limit"]) for one in refused}
    assert (len(refused), told) == (8, {(102, "too_many_answers", "user", 2, 2)})
    assert (other.text, other.failure) == ("1 2 3 ", {})
    assert len(shop.holds()) == 3


def test_an_answer_takes_no_more_memory_than_one_may(shop: Shop) -> None:
    offer = shop.offer("count:1000")
    with ExitStack() as stack:
        port, _process = limited(stack, MAX_ANSWER_BYTES="20000")
        reader = phone(shop, port, is_wxapp=False)
        reader.ask(message="x", model=offer.slug)
    [message] = shop.messages()
    assert 0 < len(message.answer.split()) < 1000
    assert (message.state, message.finish_reason, reader.receipt["reason"]) == ("done", "length", "length")
    assert_one_charge(shop)
