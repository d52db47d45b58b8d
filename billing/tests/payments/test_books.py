"""The audit's I7, and the admin: secrets are taken and never shown, orders and events only looked at."""

import pytest
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse

from billing import audit
from billing.models import MerchantAccount, Order, PaymentEvent
from billing.tests.payments.conftest import Till, open_till
from tenants import scope
from tenants.models import Membership
from tests.doubles.wechatpay import WeChatPayDouble, pem, public_pem, rsa_key
from tests.factories import host_of, make_operator, make_staff


@pytest.fixture
def sold(db: None, wechat: WeChatPayDouble) -> Till:
    """A till with a paid order and a pending one; not audited at the end."""
    till = open_till(wechat)
    number = till.number(till.buy())
    wechat.pay(number)
    till.deliver(wechat.notification(number))
    till.buy(method="h5")
    return till


def broken(till: Till) -> list[str]:
    return sorted({breach.invariant for breach in audit.audit_tenant(tenant_id=till.tenant.pk)})


@pytest.mark.parametrize(
    ("statement", "invariants"),
    [
        (
            "UPDATE billing_order SET state = 'pending', paid_at = NULL, transaction_id = '' WHERE tenant_id = %s",
            ["I7"],
        ),
        (
            (
                "UPDATE billing_order SET state = 'paid', paid_at = now(), transaction_id = id WHERE tenant_id = %s"
                " AND state = 'pending'"
            ),
            ["I7"],
        ),
        ("UPDATE billing_order SET price = price + 10000 WHERE tenant_id = %s AND state = 'paid'", ["I7"]),
        ("UPDATE billing_order SET bonus = bonus + 1 WHERE tenant_id = %s AND state = 'paid'", ["I7"]),
        ("UPDATE billing_order SET merchant_id = '1' WHERE tenant_id = %s AND state = 'paid'", ["I7"]),
        (
            (
                "INSERT INTO billing_transfer (tenant_id, kind, ref, actor, reason) SELECT tenant_id, 'topup', id, '',"
                " '' FROM billing_order WHERE tenant_id = %s AND state = 'pending'"
            ),
            ["I1", "I7"],
        ),
        ("DELETE FROM billing_order WHERE tenant_id = %s AND state = 'paid'", ["I7"]),
    ],
)
def test_the_audit_finds_an_order_without_its_top_up(sold: Till, statement: str, invariants: list[str]) -> None:
    assert broken(sold) == []
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in ("billing_transfer", "billing_order", "billing_paymentevent"):
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        cursor.execute(statement, [sold.tenant.pk])
        assert cursor.rowcount > 0
        assert broken(sold) == invariants
    transaction.set_rollback(True)


def operator() -> Client:
    client = Client(headers={"host": "localhost"})
    client.force_login(make_operator())
    return client


def page(model: str, name: str, *args: object) -> str:
    return reverse(f"admin:billing_{model}_{name}", args=args)


def form(till: Till, **fields: str) -> dict[str, str]:
    """Return what the operator's browser sends."""
    account = till.account
    values = {
        "tenant": str(till.tenant.pk),
        "channel": "wechat",
        "merchant_id": account.merchant_id,
        "app_id": account.app_id,
        "certificate_serial": account.certificate_serial,
        "platform_key_id": account.platform_key_id,
        "platform_public_key": account.platform_public_key,
        "platform_certificates": "",
        "environment": account.environment,
        "is_enabled": "on",
        "private_key": "",
        "api_v3_key": "",
    }
    return values | fields


def stored(till: Till) -> MerchantAccount:
    with scope.tenant(till.tenant.pk):
        return MerchantAccount.objects.get(pk=till.account.pk)


def test_a_merchant_s_secrets_are_never_shown(sold: Till) -> None:
    owner = Client(headers={"host": host_of(sold.tenant)})
    owner.force_login(make_staff(sold.tenant, role=Membership.Role.OWNER))
    theirs = reverse("tenant_admin:billing_merchantaccount_change", args=[sold.account.pk])
    for client, path in ((operator(), page("merchantaccount", "change", sold.account.pk)), (owner, theirs)):
        answer = client.get(path)
        shown = answer.content.decode()
        assert (answer.status_code, sold.account.merchant_id in shown) == (200, True)
        lines = sold.account.private_key.splitlines()[1:3]
        assert [secret in shown for secret in (sold.merchant.api_v3_key, *lines, "gAAAA")] == [False] * 4


def test_new_secrets_are_taken_and_empty_ones_keep_the_old(sold: Till) -> None:
    client, path = operator(), page("merchantaccount", "change", sold.account.pk)
    assert client.post(path, form(sold, app_id="wx1234567890")).status_code == 302
    kept = stored(sold)
    assert (kept.app_id, kept.api_v3_key) == ("wx1234567890", sold.merchant.api_v3_key)
    assert kept.private_key == sold.account.private_key
    fresh = {
        "api_v3_key": "k" * 32,
        "private_key": pem(rsa_key("fresh")).strip(),
        "platform_public_key": public_pem(rsa_key("fresh")).strip(),
    }
    assert client.post(path, form(sold, **fresh)).status_code == 302
    changed = stored(sold)
    assert {name: getattr(changed, name).replace("\r", "").strip() for name in fresh} == fresh


@pytest.mark.parametrize("model", [Order, PaymentEvent])
def test_orders_and_events_are_only_looked_at(sold: Till, model: type[Order | PaymentEvent]) -> None:
    client, name = operator(), model.__name__.lower()
    with scope.tenant(sold.tenant.pk):
        row = model.objects.earliest("pk")
    refused = [
        client.get(page(name, "add")),
        client.post(page(name, "change", row.pk), {}),
        client.post(page(name, "delete", row.pk), {"post": "yes"}),
    ]
    assert [answer.status_code for answer in refused] == [403, 403, 403]
    assert client.get(page(name, "change", row.pk)).status_code == 200
    assert client.get(page(name, "changelist")).status_code == 200
