"""One's balance and redeeming, as apps ask for them."""

from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.test import Client
from pytest_django import Settings

from billing.tests.conftest import Shop, open_shop
from tenants.models import EndUser
from tests.factories import credit, host_of, make_codes, make_token, make_user

WRONG = "2222-2222-2222-2222"


@pytest.fixture(autouse=True)
def _encryption(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]


def client_of(shop: Shop, user: EndUser | None = None, address: str = "127.0.0.1") -> Client:
    token = make_token(user or shop.user)
    headers = {"Host": host_of(shop.tenant), "Authorization": f"Bearer {token}"}
    return Client(headers=headers, REMOTE_ADDR=address)


def send(client: Client, code: Any) -> Any:
    return client.post("/api/billing/redeem", {"code": code}, content_type="application/json")


def test_a_balance_is_told_in_strings(shop: Shop) -> None:
    credit(shop.user, 20_000_000)
    credit(shop.user, 500, kind="gift")
    shop.admit()
    answer = client_of(shop).get("/api/billing/balance").json()
    assert answer == {
        "code": 1,
        "msg": "ok",
        "data": {"cash": "20000000", "gift": "500", "pending": "8000", "available": "19992500"},
    }


@pytest.mark.parametrize("kind", ["cash", "gift"])
def test_a_code_is_redeemed(shop: Shop, kind: str) -> None:
    credit(shop.user, 5)
    (code,) = make_codes(shop.tenant, kind=kind)
    answer = send(client_of(shop), f"https://{host_of(shop.tenant)}/r/{code}")
    assert (answer.status_code, answer.json()) == (
        200,
        {"code": 1, "msg": "ok", "data": {"credited": "10000000", "kind": kind, "balance": "10000005"}},
    )


def test_a_refusal_says_why(shop: Shop) -> None:
    (code,) = make_codes(shop.tenant)
    client = client_of(shop)
    answers = [send(client, sent) for sent in (code, code, WRONG, "", 7)]
    assert [(answer.status_code, answer.json().get("type")) for answer in answers] == [
        (200, None),
        (400, "redeem_code_used"),
        (400, "redeem_code_unknown"),
        (400, "invalid_request"),
        (400, "invalid_request"),
    ]
    assert answers[2].json()["msg"] == "This code is not known here. Please check it and try again."


def test_without_a_log_in_there_is_nothing(shop: Shop) -> None:
    (code,) = make_codes(shop.tenant)
    stranger = open_shop()
    nobody = Client(headers={"Host": host_of(shop.tenant)})
    foreign = Client(headers={"Host": host_of(shop.tenant), "Authorization": f"Bearer {make_token(stranger.user)}"})
    for client in (nobody, foreign):
        assert (send(client, code).status_code, client.get("/api/billing/balance").status_code) == (401, 401)
    assert send(client_of(shop), code).status_code == 200


def test_guessing_ends_for_a_user(shop: Shop, settings: Settings) -> None:
    settings.REDEEM_TRIES = 3
    (code,) = make_codes(shop.tenant)
    client = client_of(shop)
    got = [send(client, WRONG) for _ in range(3)] + [send(client, code)]
    assert [(answer.status_code, answer.json()["code"], answer.json()["type"]) for answer in got] == [
        (400, 10001, "redeem_code_unknown"),
        (400, 10001, "redeem_code_unknown"),
        (400, 10001, "redeem_code_unknown"),
        (429, 102, "too_many_tries"),
    ]
    assert send(client_of(shop, shop.open_more()), code).status_code == 200


def test_guessing_ends_for_an_address_with_many_guests(shop: Shop, settings: Settings) -> None:
    settings.REDEEM_TRIES = 1
    guests = [make_user(shop.tenant, is_guest=True) for _ in range(12)]
    got = [send(client_of(shop, guest, "192.0.2.7"), WRONG).status_code for guest in guests[:11]]
    assert got == [400] * 10 + [429]
    assert send(client_of(shop, guests[11], "192.0.2.8"), WRONG).status_code == 400
