"""The WebSocket door over real connections, under uvicorn and daphne: the same answers, refusals and limits."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from billing.audit import audit_tenant
from billing.tasks import record_usage
from chat.tests.test_survival import wait_for
from tenants import scope
from tenants.models import Embedding
from tests.clients.phone import Phone
from tests.factories import make_mini_program
from tests.recordings import recording
from tests.servers import web_server
from tests.shop import YUAN, Shop, open_shop

pytestmark = pytest.mark.usefixtures("committed_db")

Event = dict[str, Any]


@pytest.fixture
def shop(upstream_url: str) -> Shop:
    return open_shop(upstream_url)


@contextmanager
def opened(port: int, shop: Shop, *, token: str | None = None, **headers: str) -> Iterator[ClientConnection]:
    """Open a connection as Alice's, or as the token's; "" for nobody's."""
    token = shop.alice.token if token is None else token
    sent = {"Host": shop.host, "Accept-Language": "en", **headers}
    if token:
        sent["Authorization"] = f"Bearer {token}"
    # The library's Host is the address's, so the name stands there, and where it leads to is the socket's affair.
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    host = sent.pop("Host")
    with connect(f"ws://{host}/ws/chat", sock=connection, additional_headers=sent, proxy=None, max_size=None) as it:
        yield it


def say(connection: ClientConnection, **values: Any) -> None:
    connection.send(json.dumps(values))


def hear(connection: ClientConnection) -> Event:
    return dict(json.loads(connection.recv(timeout=30)))


def until_end(connection: ClientConnection) -> list[Event]:
    """Return the events up to the one that ends an answer."""
    events = [hear(connection)]
    while events[-1]["event"] not in {"end", "error"}:
        events.append(hear(connection))
    return events


def text_of(events: list[Event]) -> str:
    return "".join(event["content"] for event in events if event["event"] == "text")


def only(events: list[Event], kind: str) -> Event:
    [found] = [event for event in events if event["event"] == kind]
    return found


def assert_books_are_right(shop: Shop) -> None:
    for hold in shop.holds():
        if hold.state == "posted":
            record_usage(str(hold.pk), shop.tenant.pk)
    assert shop.balance(shop.alice).pending == 0
    assert audit_tenant(tenant_id=shop.tenant.pk) == []


@pytest.mark.parametrize("name", ["zh", "emoji", "words"])
def test_an_answer_as_events(shop: Shop, chat_port: int, name: str) -> None:
    shop.offer(name)
    with opened(chat_port, shop) as connection:
        say(connection, op="send", message="说", client_msg_id="k", ref="r-1")
        events = until_end(connection)
    [message] = shop.messages()
    about = {"message_id": str(message.pk), "ref": "r-1"}
    assert events[0] == {"event": "started", "conversation_id": str(message.conversation_id), **about}
    assert text_of(events) == message.answer == recording(name).text
    assert events[-2:] == [
        {"event": "receipt", "receipt": message.receipt, **about},
        {"event": "end", **about},
    ]
    # The same key by the other door: the same answer, and nothing more to pay.
    phone = Phone(chat_port, shop.host, shop.alice.token, is_wxapp=True)
    phone.ask(message="说", client_msg_id="k")
    assert (phone.text, phone.receipt) == (message.answer, message.receipt)
    assert [hold.charge for hold in shop.holds()] == [20 * YUAN - shop.balance(shop.alice).cash]
    assert_books_are_right(shop)


def test_a_socket_that_is_cut_resumes_by_either_door(shop: Shop, chat_port: int) -> None:
    shop.offer("pace:60:20")
    with opened(chat_port, shop) as connection:
        say(connection, message="x")
        started = hear(connection)
        text = hear(connection)["content"]
    with opened(chat_port, shop) as connection:
        say(connection, op="resume", message_id=started["message_id"], offset=len(text))
        text += text_of(until_end(connection))
    phone = Phone(chat_port, shop.host, shop.alice.token, is_wxapp=False)
    phone.resume_of(started["message_id"])
    [message] = shop.messages()
    assert (text, phone.text) == (message.answer, message.answer)
    assert len(shop.holds()) == 1
    assert_books_are_right(shop)


def test_a_socket_stops_an_answer(shop: Shop, chat_port: int) -> None:
    shop.offer("pace:400:20", slug="long", max_output_tokens=400)
    with opened(chat_port, shop) as connection:
        say(connection, message="x")
        message_id = hear(connection)["message_id"]
        hear(connection)
        say(connection, op="stop", message_id=message_id, ref="s")
        events = until_end(connection)
        say(connection, op="stop", message_id=message_id)
        again = hear(connection)
    assert only(events, "stopping") == {"event": "stopping", "message_id": message_id, "ref": "s", "running": True}
    assert only(events, "receipt")["receipt"]["reason"] == "stopped"
    assert events[-1]["event"] == "end"
    assert again == {"event": "stopping", "message_id": message_id, "running": False}
    assert [(message.state, hold.reason) for message, hold in zip(shop.messages(), shop.holds(), strict=True)] == [
        ("cut", "stopped")
    ]
    assert_books_are_right(shop)


def test_several_answers_on_one_socket(shop: Shop, chat_port: int) -> None:
    shop.offer("pace:60:20")
    with opened(chat_port, shop) as connection:
        for number in range(3):
            say(connection, message=f"x{number}", ref=str(number))
        events: list[Event] = []
        while len([event for event in events if event["event"] == "end"]) < 3:
            events.append(hear(connection))
    for message in shop.messages():
        mine = [event for event in events if event["message_id"] == str(message.pk)]
        assert text_of(mine) == message.answer
        assert {f"x{event['ref']}" for event in mine} == {message.question}
    assert_books_are_right(shop)


@pytest.mark.parametrize(
    ("request_", "code", "kind", "scope"),
    [
        ("no json", 10001, "invalid_parameter", "body"),
        ("[]", 10001, "invalid_parameter", "body"),
        ("{}", 10001, "message_missing", "message"),
        ('{"op":"dance"}', 10001, "invalid_parameter", "op"),
        ('{"op":"resume"}', 10001, "invalid_parameter", "message_id"),
        ('{"op":"stop","message_id":"x"}', 404, "message_not_found", "message_id"),
        ('{"op":"resume","message_id":"x"}', 404, "message_not_found", "message_id"),
        ('{"message":7}', 10001, "invalid_parameter", "message"),
        ('{"message":"x","ref":7}', 10001, "invalid_parameter", "ref"),
        ('{"message":"x","model":"nope"}', 404, "model_not_found", "model"),
        ('{"message":"x","token":"nobody"}', -1, "login_required", ""),
    ],
)
def test_a_refusal_is_an_event_and_the_connection_goes_on(
    shop: Shop, chat_port: int, request_: str, code: int, kind: str, scope: str
) -> None:
    shop.offer("plain")
    with opened(chat_port, shop, token="") as connection:
        if "nobody" not in request_:
            say(connection, op="ping", token=shop.alice.token)
            hear(connection)
        connection.send(request_)
        told = hear(connection)
        assert set(told) == {"event", "code", "msg", "type", "scope", "action", "reset_at", "request_id"}
        assert (told["event"], told["code"], told["type"], told["scope"]) == ("error", code, kind, scope)
        assert shop.messages() == []
        say(connection, message="x", token=shop.alice.token)
        assert until_end(connection)[-1]["event"] == "end"


def test_a_broke_user_is_told_101_and_an_unknown_one_nothing_but_log_in(shop: Shop, chat_port: int) -> None:
    shop.offer("plain")
    bob, foreigner = shop.person(), open_shop(shop.account.base_url).alice
    for token, code in ((bob.token, 101), ("", -1), (foreigner.token, -1)):
        with opened(chat_port, shop, token=token) as connection:
            say(connection, message="x")
            assert hear(connection)["code"] == code
    assert shop.messages() == []


def test_a_newer_token_is_the_one_that_counts(shop: Shop, chat_port: int) -> None:
    shop.offer("plain")
    bob = shop.person(cash=YUAN)
    with opened(chat_port, shop) as connection:
        say(connection, op="ping", token=bob.token)
        hear(connection)
        say(connection, message="x")
        until_end(connection)
    assert [message.user_id for message in shop.messages()] == [bob.user.pk]


def test_another_users_answer_is_neither_read_nor_stopped(shop: Shop, chat_port: int) -> None:
    shop.offer("plain")
    Phone(chat_port, shop.host, shop.alice.token, is_wxapp=True).ask(message="a secret of hers")
    [message] = shop.messages()
    with opened(chat_port, shop, token=shop.person().token) as connection:
        for operation in ("resume", "stop"):
            say(connection, op=operation, message_id=str(message.pk))
            assert hear(connection)["code"] == 404


def test_the_tenant_comes_from_the_app_id_too(shop: Shop, chat_port: int) -> None:
    shop.offer("plain")
    program = make_mini_program(shop.tenant)
    sent = {"Authorization": f"Bearer {shop.alice.token}"}
    address = f"ws://127.0.0.1:{chat_port}/ws/chat?appid={program.app_id}"
    sent["Origin"] = "https://servicewechat.com"
    with connect(address, additional_headers=sent, proxy=None) as connection:
        say(connection, message="x")
        assert until_end(connection)[-1]["event"] == "end"
    assert len(shop.messages()) == 1


@pytest.mark.parametrize(
    ("origin", "is_let_in"),
    [
        (None, True),
        ("https://{host}", True),
        ("https://{host}:8443", True),
        ("https://servicewechat.com", True),
        ("https://elsewhere.example", False),
        ("https://{host}.elsewhere.example", False),
        ("null", False),
        ("file://", False),
    ],
)
def test_only_known_pages_may_connect(shop: Shop, chat_port: int, origin: str | None, *, is_let_in: bool) -> None:
    headers = {"Origin": origin.format(host=shop.host)} if origin else {}
    if is_let_in:
        with opened(chat_port, shop, **headers) as connection:
            say(connection, op="ping", ref="p")
            assert hear(connection) == {"event": "pong", "ref": "p"}
        return
    with pytest.raises(InvalidStatus) as refused, opened(chat_port, shop, **headers):
        pass
    assert refused.value.response.status_code == 403


def test_a_page_that_the_tenant_names_may_connect(upstream_url: str, shop: Shop, chat_port: int) -> None:
    other = open_shop(upstream_url)
    with scope.tenant(shop.tenant.pk):
        Embedding.objects.create(tenant=shop.tenant, origins=["https://shop.example.com"])
    page = {"Origin": "https://shop.example.com"}
    with opened(chat_port, shop, **page) as connection:
        say(connection, op="ping", ref="p")
        assert hear(connection) == {"event": "pong", "ref": "p"}
    with pytest.raises(InvalidStatus) as refused, opened(chat_port, other, **page):
        pass
    assert refused.value.response.status_code == 403


def test_another_path_is_no_door(shop: Shop, chat_port: int) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(f"ws://127.0.0.1:{chat_port}/ws/other", proxy=None):
        pass
    assert refused.value.response.status_code == 403


def test_a_socket_that_takes_nothing_holds_up_nobody(shop: Shop, chat_port: int) -> None:
    offer = shop.offer("pace:60:20")
    with opened(chat_port, shop) as lazy:
        say(lazy, message="x", client_msg_id="k", model=offer.slug)
        wait_for(shop.messages)
        phones = [Phone(chat_port, shop.host, shop.alice.token, is_wxapp=False) for _ in range(2)]
        threads = [
            threading.Thread(target=lambda one=one: one.ask(message="x", client_msg_id="k", model=offer.slug))
            for one in phones
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [message] = shop.messages()
        assert [phone.text for phone in phones] == [message.answer] * 2
        assert text_of(until_end(lazy)) == message.answer
    assert_books_are_right(shop)


def test_the_log_has_no_token_of_an_address(shop: Shop, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with web_server("uvicorn", log=log) as port:
        address = f"ws://127.0.0.1:{port}/ws/chat?token={shop.alice.token}"
        with connect(address, proxy=None) as connection:
            say(connection, op="ping")
            hear(connection)
    said = log.read_text()
    assert "/ws/chat" in said
    assert shop.alice.token not in said
