"""What a person has in the books goes along with them, and stays there without them."""

from typing import Any

import pytest
from django.test import Client

from billing import audit
from billing.models import Account, Entry, Order, RewardOrigin
from billing.tests.conftest import Shop
from tenants import personal, scope
from tenants.models import AccessToken, AccountDeletion, EndUser, WeChatIdentity
from tests.factories import PASSWORD, credit, host_of, make_plan, make_token, make_user, order_plan, pay, subscribe

YUAN = 1_000_000


def client_of(user: EndUser) -> Client:
    headers = {"host": host_of(user.tenant), "authorization": f"Bearer {make_token(user)}", "accept-language": "en"}
    return Client(headers=headers, raise_request_exception=False)


def delete(user: EndUser, **body: Any) -> Any:
    return client_of(user).post("/api/auth/account/delete", body, content_type="application/json").json()


def archive(user: EndUser) -> Any:
    answer = client_of(user).get("/api/auth/account/archive")
    assert answer["Content-Disposition"].startswith(f'attachment; filename="archive-{user.pk}-')
    return answer.json()


def test_the_archive_has_the_books_and_nobody_elses(shop: Shop) -> None:
    credit(shop.user, 20 * YUAN)
    order = order_plan(shop.user, make_plan(shop.tenant, name="Monthly"))
    pay(order)
    other = shop.open_more()
    credit(other, 777 * YUAN)
    told = archive(shop.user)
    assert (told["format"], told["version"], told["account"]["id"]) == ("banyan-user-archive", 1, shop.user.pk)
    assert told["balance"] == {"cash": "20000000", "gift": "0", "pending": "0"}
    assert [(row["account"], row["kind"], row["amount"]) for row in told["ledger"]] == [("cash", "credit", "20000000")]
    assert [(row["id"], row["name"], row["price"], row["state"]) for row in told["orders"]] == [
        (str(order.pk), "Monthly", "19900000", "paid")
    ]
    assert [plan["name"] for plan in told["plans"]] == ["Monthly"]
    assert "777" not in str(told["ledger"])
    assert (told["conversations"], told["receipts"], told["api_keys"]) == ([], [], [])


def test_a_balance_is_given_up_by_consent_only_and_stays_in_the_books(shop: Shop) -> None:
    credit(shop.user, 20 * YUAN)
    credit(shop.user, YUAN, kind="gift")
    refused = delete(shop.user)
    assert (refused["type"], refused["action"], refused["cash"], refused["gift"], refused["plans"]) == (
        "deletion_forfeits",
        "forfeit",
        "20000000",
        "1000000",
        [],
    )
    told = client_of(shop.user).get("/api/auth/account/deletion").json()["data"]
    assert told == {"cash": "20000000", "gift": "1000000", "plans": [], "waits_for": []}
    with scope.tenant(shop.tenant.pk):
        entries = list(Entry.objects.order_by("pk").values_list("account_id", "amount"))
    proof = delete(shop.user, forfeit=True)["data"]
    assert (proof["cash"], proof["gift"], proof["erased"]["profile"]) == ("20000000", "1000000", 1)
    with scope.tenant(shop.tenant.pk):
        assert list(Entry.objects.order_by("pk").values_list("account_id", "amount")) == entries
        kept = dict(Account.objects.filter(user=shop.user).values_list("kind", "posted"))
        row = AccountDeletion.objects.get(pk=proof["number"])
        assert personal.proof_of(row).seal == proof["seal"]
    assert kept == {"user_cash": 20 * YUAN, "user_gift": YUAN}


def test_nothing_of_the_person_is_left(shop: Shop) -> None:
    user = make_user(
        shop.tenant,
        username="alice",
        phone="13800138000",
        email="alice@example.com",
        nickname="Alice",
        password=PASSWORD,
    )
    with scope.tenant(shop.tenant.pk):
        WeChatIdentity.objects.create(tenant=shop.tenant, user=user, app_id="wx0123456789", openid="the-open-id")
        RewardOrigin.objects.create(tenant=shop.tenant, user=user, device_digest="0" * 64, address_digest="1" * 64)
    order = order_plan(user, make_plan(shop.tenant))
    with scope.tenant(shop.tenant.pk):
        Order.objects.filter(pk=order.pk).update(payer_openid="the-open-id")
    pay(order)
    refused = delete(user)
    assert (refused["type"], len(refused["plans"])) == ("deletion_forfeits", 1)  # the plan still runs
    token = make_token(user)
    assert delete(user, forfeit=True)["code"] == 1
    with scope.tenant(shop.tenant.pk):
        gone = EndUser.objects.get(pk=user.pk)
        assert (gone.username, gone.phone, gone.email, gone.nickname, gone.password) == (None, None, None, "", "")
        assert (gone.is_active, gone.deleted_at is not None) == (False, True)
        assert Order.objects.get(pk=order.pk).payer_openid == ""
        left = [
            WeChatIdentity.objects.filter(user=user).count(),
            AccessToken.objects.filter(user=user).count(),
            RewardOrigin.objects.filter(user=user).count(),
        ]
    assert left == [0, 0, 0]
    client = Client(headers={"host": host_of(shop.tenant), "authorization": f"Bearer {token}"})
    assert client.get("/api/auth/me").json()["type"] == "login_required"
    # what identified them is free for a new account
    assert make_user(shop.tenant, username="alice", phone="13800138000", email="alice@example.com").pk != user.pk


def test_what_is_under_way_ends_first(shop: Shop) -> None:
    credit(shop.user, 20 * YUAN)
    hold = shop.admit()
    refused = delete(shop.user, forfeit=True)
    assert (refused["type"], refused["waits_for"]) == ("deletion_waits", ["answer"])
    shop.settle(hold)
    order_plan(shop.user, make_plan(shop.tenant))
    assert delete(shop.user, forfeit=True)["waits_for"] == ["order"]
    with scope.tenant(shop.tenant.pk):
        assert EndUser.objects.get(pk=shop.user.pk).deleted_at is None


def test_leaving_wants_a_proof(shop: Shop) -> None:
    user = make_user(shop.tenant, username="alice", password=PASSWORD)
    client = client_of(user)
    with scope.tenant(shop.tenant.pk):
        AccessToken.objects.update(created_at="2026-01-01T00:00:00Z")

    def leave(**body: Any) -> str:
        answer = client.post("/api/auth/account/delete", body, content_type="application/json").json()
        return str(answer.get("type", "ok"))

    assert [leave(), leave(password="wrong"), leave(password=PASSWORD)] == ["proof_needed", "wrong_password", "ok"]


def test_the_database_lets_nothing_of_a_deleted_person_back(shop: Shop) -> None:
    from django.db import IntegrityError, transaction  # noqa: PLC0415  here alone

    assert delete(shop.user)["code"] == 1
    with scope.tenant(shop.tenant.pk), pytest.raises(IntegrityError), transaction.atomic():
        EndUser.objects.filter(pk=shop.user.pk).update(phone="13800138000")


def test_a_plan_of_somebody_else_stands_in_nobodys_way(shop: Shop) -> None:
    subscribe(shop.open_more(), make_plan(shop.tenant))
    assert delete(shop.user)["code"] == 1
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []
