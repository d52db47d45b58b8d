"""Clients that we did not write, run by node against the real endpoint: directly, and behind the shipped nginx."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.clients.miniprogram import NODE, Client, run_client
from tests.nginx import NginxMissing, start_nginx
from tests.recordings import recording
from tests.shop import Shop, open_shop

pytestmark = [
    pytest.mark.usefixtures("committed_db"),
    pytest.mark.skipif(NODE is None, reason="needs node, which runs these clients"),
]


@pytest.fixture
def shop(upstream_url: str) -> Shop:
    return open_shop(upstream_url)


@pytest.fixture(params=["directly", "behind nginx"])
def door(request: pytest.FixtureRequest, chat_port: int) -> Iterator[int]:
    if request.param == "directly":
        yield chat_port
        return
    try:
        with start_nginx(chat_port) as port:
            yield port
    except NginxMissing as missing:
        pytest.skip(str(missing))


def ask(
    client: Client,
    port: int,
    shop: Shop,
    *,
    token: str | None = None,
    delivery: dict[str, Any] | None = None,
    **params: Any,
) -> dict[str, Any]:
    query = urlencode({"message": "说", "is_wxapp": "1", **params})
    headers = {"Host": shop.host, "Authorization": f"Bearer {token or shop.alice.token}"}
    return asyncio.run(
        run_client(client, f"http://127.0.0.1:{port}/api/chat/stream?{query}", headers=headers, delivery=delivery)
    )


@pytest.mark.parametrize("name", ["zh", "emoji", "words", "split-pairs", "pace:150:1", "count:3000"])
def test_the_copied_client_loses_nothing_and_is_unlocked(shop: Shop, door: int, name: str) -> None:
    offer = shop.offer(name)
    page = ask("copied", door, shop, model=offer.slug)
    [message] = shop.messages()
    if ":" not in name and name != "split-pairs":
        assert message.answer == recording(name).text
    assert {key: page[key] for key in ("text", "locked", "code", "messageId", "conversationId", "lost")} == {
        "text": message.answer,
        "locked": False,
        "code": None,
        "messageId": str(message.pk),
        "conversationId": str(message.conversation_id),
        "lost": [],
    }
    assert page["textAfterUnlock"] == ""
    assert page["receipt"] == message.receipt


@pytest.mark.parametrize(
    "text", ["与rror", "error success", "suc与rrorcess", "0\r\n\r\n", "\r\n", "event: error\ndata: {}"]
)
def test_the_copied_client_survives_whatever_the_model_says(shop: Shop, door: int, text: str) -> None:
    shop.offer("echo")
    page = ask("copied", door, shop, message=f"x{text * 3}x")
    assert (page["text"], page["locked"], page["code"], page["lost"]) == (f"x{text * 3}x", False, None, [])
    assert page["textAfterUnlock"] == ""


def test_the_copied_client_hears_every_refusal(shop: Shop, door: int) -> None:
    shop.offer("http-500")
    bob = shop.person()
    heard = {
        "login": ask("copied", door, shop, token="bny_nobody"),
        "recharge": ask("copied", door, shop, token=bob.token),
        "failed": ask("copied", door, shop),
    }
    assert {name: (page["code"], page["locked"], page["lost"]) for name, page in heard.items()} == {
        "login": (-1, False, []),
        "recharge": (101, False, []),
        "failed": (500, False, []),
    }


@pytest.mark.parametrize(
    "delivery",
    [
        {"mode": "bytes"},
        {"mode": "all"},
        {"mode": "glue", "ms": 120},
        *({"mode": "random", "seed": seed} for seed in range(5)),
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("is_wxapp", ["0", "1"])
def test_the_careful_client_reads_any_delivery(
    shop: Shop, chat_port: int, delivery: dict[str, Any], is_wxapp: str
) -> None:
    shop.offer("zh")
    answer = ask("careful", chat_port, shop, delivery=delivery, is_wxapp=is_wxapp)
    [message] = shop.messages()
    assert (answer["text"], answer["ended"], answer["error"], answer["unknown"]) == (message.answer, True, None, [])
    assert answer["receipt"] == message.receipt
