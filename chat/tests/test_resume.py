"""A phone that is cut, wherever and as often as it may be, has the whole answer in the end, and pays for it once."""

import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from billing.audit import audit_tenant
from billing.tasks import record_usage
from tests.clients.phone import Phone
from tests.clients.raw import request_bytes
from tests.shop import YUAN, Shop, open_shop

pytestmark = pytest.mark.usefixtures("committed_db")


@pytest.fixture
def shop(upstream_url: str) -> Shop:
    return open_shop(upstream_url)


def assert_one_charge(shop: Shop) -> None:
    [hold] = shop.holds()
    assert (hold.state, hold.charge) == ("posted", 20 * YUAN - shop.balance(shop.alice).cash)
    record_usage(str(hold.pk), shop.tenant.pk)
    assert audit_tenant(tenant_id=shop.tenant.pk) == []


def read_with_cuts(phone: Phone, params: dict[str, Any], cuts: list[int]) -> None:
    """Ask, and come again after each cut until nothing is missing: with the key while there is no id yet."""
    phone.ask(**params, cut_after=cuts[0])
    for cut in cuts[1:]:
        if phone.ended:
            return
        phone.resume(cut_after=cut)
    if not phone.ended:
        phone.resume()


@pytest.mark.parametrize("is_wxapp", [True, False])
def test_a_phone_cut_at_every_byte_of_a_stored_answer(shop: Shop, chat_port: int, *, is_wxapp: bool) -> None:
    shop.offer("echo")
    asking: dict[str, Any] = {"message": "与rror 😀👨‍👩‍👧 success", "client_msg_id": "k"}
    whole = Phone(chat_port, shop.host, shop.alice.token, is_wxapp)
    whole.ask(**asking)
    [message] = shop.messages()
    assert (whole.text, whole.ended) == (message.answer, True)
    again = Phone(chat_port, shop.host, shop.alice.token, is_wxapp)
    again.resume_of(whole.message_id)
    size = again.taken

    def cut_at(byte: int) -> Phone:
        phone = Phone(chat_port, shop.host, shop.alice.token, is_wxapp)
        read_with_cuts(phone, asking, [byte])
        return phone

    with ThreadPoolExecutor(16) as threads:
        phones = list(threads.map(cut_at, range(1, size)))
    assert {phone.text for phone in phones} == {message.answer}
    assert [phone.receipt for phone in phones if phone.receipt != whole.receipt] == []
    assert_one_charge(shop)


@pytest.mark.parametrize("is_wxapp", [True, False])
@pytest.mark.parametrize("steps", [[1, 40, 170, 171, 172], [130] * 40, [700, 1, 701, 2, 702, 3], [260, 333, 999]])
def test_a_phone_cut_again_and_again_while_the_answer_is_written(
    shop: Shop, chat_port: int, steps: list[int], *, is_wxapp: bool
) -> None:
    shop.offer("pace:60:20")
    phone = Phone(chat_port, shop.host, shop.alice.token, is_wxapp)
    read_with_cuts(phone, {"message": "x", "client_msg_id": "k"}, steps)
    [message] = shop.messages()
    assert (phone.text, phone.ended, phone.failure) == (message.answer, True, {})
    assert len(phone.text.split()) == 60
    assert phone.receipt == message.receipt
    assert_one_charge(shop)


def test_a_reader_that_takes_nothing_holds_up_nobody(shop: Shop, chat_port: int) -> None:
    """Its connection is full long before the answer's end; another reader and the pump are through meanwhile."""
    offer = shop.offer("count:2000", max_output_tokens=4000)
    target, headers, body = request_bytes("POST", {"message": "x", "model": offer.slug, "client_msg_id": "k"})
    headers["Authorization"] = f"Bearer {shop.alice.token}"
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        lazy.connect(("127.0.0.1", chat_port))
        lines = [f"POST {target} HTTP/1.1", f"Host: {shop.host}", "Connection: close", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lazy.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        start = lazy.recv(100)
        other = Phone(chat_port, shop.host, shop.alice.token, is_wxapp=False)
        reading = threading.Thread(target=lambda: other.ask(message="x", model=offer.slug, client_msg_id="k"))
        reading.start()
        reading.join()
        [message] = shop.messages()
        assert (other.text, message.state) == (message.answer, "done")
        assert len(message.answer.split()) == 2000
        # And when it takes, it gets everything.
        lazy.settimeout(30)
        taken = start + b"".join(iter(lambda: lazy.recv(65536), b""))
    numbers = re.findall(rb'"content": "(\d+) "', taken)
    assert len(numbers) == 2000
    assert b"data: [DONE]" in taken
    assert_one_charge(shop)
