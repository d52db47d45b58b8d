"""The JSON API of receipts: one's own, page by page and month by month."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from chat.models import Conversation, Message
from tenants import scope
from tenants.models import EndUser, Tenant
from tests.factories import host_of, make_tenant, make_token, make_user

pytestmark = pytest.mark.django_db

PRICES = {"prompt": "2000000", "cached": "1000000", "completion": "8000000", "per_call": "5", "multiplier_ppm": "1"}
RECEIPT: dict[str, Any] = {
    "model": "smol",
    "prompt_tokens": 10,
    "cached_tokens": 2,
    "completion_tokens": 20,
    "usage_source": "upstream",
    "unit_prices": PRICES,
    "charge": "1234",
    "funding": {"free": False, "gift": "34", "cash": "1200"},
    "balance": "998766",
    "reason": "stop",
}


def answer(user: EndUser, at: datetime | None = None, receipt: dict[str, Any] | None = None) -> Message:
    with scope.tenant(user.tenant_id):
        conversation = Conversation.objects.create(tenant_id=user.tenant_id, user=user, title="a question")
        message = Message.objects.create(
            tenant_id=user.tenant_id,
            user=user,
            conversation=conversation,
            offer_slug="smol",
            question="?",
            answer="!",
            state=Message.State.DONE,
            receipt=receipt,
        )
        if at:
            Message.objects.filter(pk=message.pk).update(created_at=at)
    return message


def client_of(tenant: Tenant, user: EndUser) -> Client:
    return Client(headers={"Host": host_of(tenant), "Authorization": f"Bearer {make_token(user)}"})


def test_ones_own_receipts_the_latest_first() -> None:
    tenant = make_tenant()
    user, neighbour = make_user(tenant), make_user(tenant)
    made = [answer(user, receipt={**RECEIPT, "charge": str(number)}) for number in range(3)]
    answer(user)  # failed: nothing charged, no receipt
    answer(neighbour, receipt=RECEIPT)
    client = client_of(tenant, user)
    first = client.get("/api/billing/receipts", {"limit": 2}).json()["data"]
    rest = client.get("/api/billing/receipts", {"before": first[-1]["asked_at"]}).json()["data"]
    assert [(row["message_id"], row["receipt"]["charge"]) for row in first + rest] == [
        (str(message.pk), str(number)) for number, message in reversed(list(enumerate(made)))
    ]
    assert rest[0]["receipt"] == {**RECEIPT, "charge": "0"}
    assert rest[0]["conversation_id"] == str(made[0].conversation_id)


def test_a_month_as_a_spreadsheet() -> None:
    tenant = make_tenant()
    user = make_user(tenant)
    message = answer(user, datetime(2026, 10, 31, 16, 30, tzinfo=UTC), RECEIPT)
    got = client_of(tenant, user).get("/api/billing/receipts/export", {"month": "2026-11"})
    assert got["Content-Disposition"] == 'attachment; filename="receipts-2026-11.csv"'
    lines = got.content.decode("utf-8-sig").splitlines()
    assert lines[1:] == [
        (
            f"2026-11-01T00:30:00+08:00,{message.pk},smol,10,2,20,upstream,2.00,1.00,8.00,0.000005,1,0.001234,"
            '"gift balance, balance",0.998766,stop'
        )
    ]


def test_a_month_as_json_is_the_tenants_month() -> None:
    tenant = make_tenant()  # in Shanghai, eight hours ahead
    user = make_user(tenant)
    edge = datetime(2026, 10, 31, 16, tzinfo=UTC)
    for at in (edge - timedelta(seconds=1), edge, edge + timedelta(days=30, seconds=-1), edge + timedelta(days=30)):
        answer(user, at, {**RECEIPT, "reason": at.isoformat()})
    got = client_of(tenant, user).get("/api/billing/receipts/export", {"month": "2026-11", "format": "json"})
    assert [row["receipt"]["reason"] for row in got.json()] == [
        edge.isoformat(),
        (edge + timedelta(days=30, seconds=-1)).isoformat(),
    ]


def test_another_tenants_token_gets_none() -> None:
    tenant, other = make_tenant(), make_tenant()
    answer(make_user(tenant), receipt=RECEIPT)
    stranger = make_user(other)
    client = Client(headers={"Host": host_of(tenant), "Authorization": f"Bearer {make_token(stranger)}"})
    assert client.get("/api/billing/receipts").status_code == 401
    assert client_of(other, stranger).get("/api/billing/receipts").json()["data"] == []
