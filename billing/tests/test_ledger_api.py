"""The JSON API of one's own ledger: every movement, the balance after it, and nobody else's."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from billing.tests.conftest import Shop, open_shop
from tests.factories import YUAN, credit, host_of, make_token, make_user

pytestmark = pytest.mark.django_db


def client_of(shop: Shop) -> Client:
    headers = {"Host": host_of(shop.tenant), "Authorization": f"Bearer {make_token(shop.user)}"}
    return Client(headers=headers)


def movements(shop: Shop, **query: Any) -> list[dict[str, Any]]:
    answer = client_of(shop).get("/api/billing/ledger", query)
    assert answer.status_code == 200, answer.content
    return list(answer.json()["data"])


def used(shop: Shop) -> str:
    """Give a gift, recharge, and have an answer that takes all of the gift and some cash; return the hold's id."""
    credit(shop.user, 1_000, kind="gift")
    credit(shop.user, YUAN)
    hold = shop.admit()
    shop.settle(hold)
    return str(hold.pk)


def test_every_movement_with_the_balance_after_it(shop: Shop) -> None:
    hold = used(shop)
    rows = [(row["account"], row["kind"], row["amount"], row["balance"], row["message_id"]) for row in movements(shop)]
    # 1000 prompt tokens at ¥2 and 500 at ¥6 a million.
    assert sorted(rows[:2]) == [
        ("cash", "answer", "-4000", "996000", hold),
        ("gift", "answer", "-1000", "0", hold),
    ]
    assert rows[2:] == [("cash", "credit", "1000000", "1000000", None), ("gift", "gift", "1000", "1000", None)]


def test_pages_and_one_account_at_a_time(shop: Shop) -> None:
    used(shop)
    first = movements(shop, limit=3)
    second = movements(shop, limit=3, before=first[-1]["id"])
    assert first + second == movements(shop)
    assert [row["amount"] for row in movements(shop, account="gift")] == ["-1000", "1000"]
    assert movements(shop, account="gift", limit=1)[0]["balance"] == "0"


def test_what_staff_wrote_is_not_shown(shop: Shop) -> None:
    credit(shop.user, 5)
    assert [(row["title"], row["detail"]) for row in movements(shop)] == [("manual credit", "")]


def test_nobody_elses(shop: Shop) -> None:
    used(shop)
    other, neighbour = open_shop(), make_user(shop.tenant)
    credit(neighbour, 7)
    assert movements(other) == []
    assert "7" not in [row["amount"] for row in movements(shop)]
    assert Client(headers={"Host": host_of(shop.tenant)}).get("/api/billing/ledger").status_code == 401


def test_a_month_as_a_file(shop: Shop) -> None:
    used(shop)
    answer = client_of(shop).get("/api/billing/ledger/export")
    assert (answer.status_code, answer["Content-Type"]) == (200, "text/csv; charset=utf-8")
    lines = [line.split(",") for line in answer.content.decode("utf-8-sig").splitlines()]
    assert lines[0] == ["time", "balance", "kind", "detail", "yuan", '"balance after', ' yuan"']
    assert [line[1:3] + line[4:] for line in lines[1:3]] == [
        ["gift balance", "gift", "0.001", "0.001"],
        ["balance", "manual credit", "1.00", "1.00"],
    ]
    assert sorted(line[4:] for line in lines[3:]) == [["-0.001", "0.00"], ["-0.004", "0.996"]]


def test_a_month_begins_with_the_balance_of_the_months_before(shop: Shop) -> None:
    credit(shop.user, 3 * YUAN)
    with connection.cursor() as cursor:  # the ledger refuses this, so the trigger steps aside for the test's moment
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE billing_transfer DISABLE TRIGGER billing_transfer_append_only")
        cursor.execute(
            "UPDATE billing_transfer SET created_at = %s WHERE tenant_id = %s AND kind = 'credit'",
            [timezone.now() - timedelta(days=40), shop.tenant.pk],
        )
        cursor.execute("ALTER TABLE billing_transfer ENABLE TRIGGER billing_transfer_append_only")
    credit(shop.user, YUAN)
    lines = client_of(shop).get("/api/billing/ledger/export").content.decode("utf-8-sig").splitlines()
    assert [line.split(",")[4:] for line in lines[1:]] == [["1.00", "4.00"]]


@pytest.mark.parametrize("month", ["2026-13", "11-2026", "2026-1", "x"])
def test_no_such_month(shop: Shop, month: str) -> None:
    answer = client_of(shop).get("/api/billing/ledger/export", {"month": month})
    assert (answer.status_code, answer.json()["type"], answer.json()["fields"]) == (400, "invalid_request", ["month"])
