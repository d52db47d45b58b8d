"""Owners, finance and the operator refund and credit; support looks; nobody sees another tenant's. And the audit."""

import html
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import translation
from structlog.testing import capture_logs

from billing import audit, ledger
from billing.models import Order, Refund, Transfer
from billing.tests.payments.conftest import BONUS, CREDITS, PRICE, Till, open_till
from tenants import scope
from tenants.models import EndUser, StaffUser
from tests.doubles.wechatpay import WeChatPayDouble
from tests.factories import YUAN, host_of, make_operator, make_staff

TREASURERS = ["owner", "finance"]


def browser(till: Till, role: str) -> Client:
    """Return the browser of someone at the tenant's site, or of the operator at its own."""
    staff = make_operator() if role == "operator" else make_staff(till.tenant, role=role)
    StaffUser.objects.filter(pk=staff.pk).update(language="en")
    client = Client(headers={"host": "localhost" if role == "operator" else host_of(till.tenant)})
    client.force_login(staff)
    return client


def path(role: str, name: str, *args: object) -> str:
    return reverse(f"{'admin' if role == 'operator' else 'tenant_admin'}:{name}", args=args)


def form(**fields: str) -> dict[str, str]:
    return {"yuan": "10", "kind": "provider", "reason": "not wanted", "number": str(uuid4()), **fields}


def fields_of(answer: Any) -> dict[str, list[str]]:
    with translation.override("en"):
        return {name: [str(text) for text in texts] for name, texts in answer.context["form"].errors.items()}


def facts_of(answer: Any) -> list[str]:
    return [value for _name, value in answer.context["facts"]]


@pytest.mark.parametrize("role", [*TREASURERS, "operator"])
def test_an_order_is_refunded_from_its_page(till: Till, role: str) -> None:
    order = till.sold()
    client, where = browser(till, role), path(role, "billing_order_refund", order.pk)
    assert where in client.get(path(role, "billing_order_change", order.pk)).content.decode()
    first = client.get(where)
    assert (first.context["form"].initial["yuan"], facts_of(first)) == ("10.00", ["¥10.00"] * 3)
    asked = form(yuan="5", reason="a mistake")
    shown = client.post(where, asked)
    assert (shown.context["confirming"], facts_of(shown)) == (True, ["¥5.00", "¥5.00", "¥1.00", "¥0.00"])
    assert till.refunds() == []
    with capture_logs() as logs:
        answers = [client.post(where, asked | {"confirmed": "yes"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [302, 302]
    assert till.refunds() == [(5 * YUAN, "requested")]
    staff = StaffUser.objects.get(pk=client.session["_auth_user_id"])
    with scope.tenant(till.tenant.pk):
        row = Refund.objects.get()
    assert (row.kind, row.reason, row.requested_by) == ("provider", "a mistake", staff.username)
    wanted = {"event": "refund_requested", "staff": staff.pk, "tenant_id": till.tenant.pk, "refund": str(row.pk)}
    assert wanted.items() <= next(log for log in logs if log["event"] == "refund_requested").items()
    history = LogEntry.objects.filter(user=staff, object_id=str(order.pk)).latest("pk").change_message
    assert history == "Refund of ¥5.00: requested. Reason: a mistake"
    for name in ("billing_refund_changelist", "billing_order_changelist"):
        assert "¥5.00" in client.get(path(role, name)).content.decode()


def test_what_is_paid_by_hand_and_what_was_charged_back(till: Till) -> None:
    order = till.sold()
    client = browser(till, "finance")
    by_hand = form(yuan="2.50", kind="manual", confirmed="yes")
    assert client.post(path("finance", "billing_order_refund", order.pk), by_hand).status_code == 302
    till.spend(9 * YUAN)
    where = path("finance", "billing_order_charge_back", order.pk)
    assert client.get(where).context["form"].initial["yuan"] == "7.50"
    shown = client.post(where, form(yuan="7.50", refund_id="4200"))
    assert facts_of(shown) == ["¥7.50", "¥0.00", "¥0.00", "¥9.00"]
    assert client.post(where, form(yuan="7.50", refund_id="4200", confirmed="yes")).status_code == 302
    with scope.tenant(till.tenant.pk):
        rows = list(Refund.objects.order_by("created_at").values_list("kind", "state", "refund_id", "shortfall"))
    assert rows == [("manual", "done", "", 0), ("forced", "done", "4200", 9 * YUAN)]
    assert till.balances() == ledger.Balances(cash=0, gift=0, pending=0)


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({"yuan": "0"}, {"yuan": ["An amount such as 10 or 0.50 is wanted."]}),
        ({"yuan": "-1"}, {"yuan": ["An amount such as 10 or 0.50 is wanted."]}),
        ({"yuan": "0.001"}, {"yuan": ["An amount such as 10 or 0.50 is wanted."]}),
        ({"reason": " "}, {"reason": ["This field is required."]}),
        ({"kind": "forced"}, {"kind": ["Select a valid choice. forced is not one of the available choices."]}),
        ({"yuan": "10.01"}, {"__all__": ["Of this order ¥10.00 can be refunded."]}),
        ({"yuan": "9"}, {"__all__": ["The user has spent a part of it: ¥5.83 can be refunded at most."]}),
    ],
)
def test_what_cannot_be_refunded_says_why(till: Till, fields: dict[str, str], errors: dict[str, list[str]]) -> None:
    order = till.sold()
    till.spend(5 * YUAN)
    answer = browser(till, "owner").post(
        path("owner", "billing_order_refund", order.pk), form(**{"confirmed": "yes", **fields})
    )
    assert (answer.status_code, fields_of(answer), till.refunds()) == (200, errors, [])
    (said,) = (text for texts in errors.values() for text in texts)
    assert said in html.unescape(answer.content.decode())


def test_another_amount_under_the_same_number_is_refused(till: Till) -> None:
    order = till.sold()
    client, where = browser(till, "owner"), path("owner", "billing_order_refund", order.pk)
    asked = form(yuan="2", confirmed="yes")
    assert client.post(where, asked).status_code == 302
    answer = client.post(where, asked | {"yuan": "3"})
    assert fields_of(answer) == {"__all__": ["This form was sent before with another amount."]}
    assert till.refunds() == [(2 * YUAN, "requested")]


@pytest.mark.parametrize("name", ["billing_order_refund", "billing_order_charge_back"])
@pytest.mark.parametrize("role", ["support", "content"])
def test_others_refund_nothing(till: Till, role: str, name: str) -> None:
    order = till.sold()
    till.refund(order, YUAN)
    client, where = browser(till, role), path(role, name, order.pk)
    asked = form(confirmed="yes", refund_id="1")
    assert [client.get(where).status_code, client.post(where, asked).status_code] == [403, 403]
    assert till.refunds() == [(YUAN, "requested")]
    page = client.get(path(role, "billing_order_change", order.pk))
    looks = client.get(path(role, "billing_refund_changelist"))
    assert (page.status_code, looks.status_code) == ((200, 200) if role == "support" else (403, 403))
    assert where not in page.content.decode()


def test_another_tenants_staff_finds_no_order_refund_or_user(till: Till, other: Till) -> None:
    order = till.sold()
    row = till.refund(order, YUAN)
    client = browser(other, "owner")
    paths = [
        path("owner", "billing_order_refund", order.pk),
        path("owner", "billing_order_charge_back", order.pk),
        path("owner", "tenants_enduser_credit", till.user.pk),
    ]
    for where in paths:
        assert [client.get(where).status_code, client.post(where, form(confirmed="yes")).status_code] == [404, 404]
    assert client.get(path("owner", "billing_refund_change", row.pk)).status_code == 404
    shown = client.get(path("owner", "billing_refund_changelist")).content.decode()
    assert (row.out_refund_no in shown, order.out_trade_no in shown) == (False, False)
    assert (till.refunds(), other.books()) == ([(YUAN, "requested")], {})


def test_nobody_edits_a_refund(till: Till) -> None:
    row = till.refund(till.sold(), YUAN)
    client = browser(till, "operator")
    answers = [
        client.get(path("operator", "billing_refund_add")),
        client.post(path("operator", "billing_refund_change", row.pk), {"state": "failed"}),
        client.post(path("operator", "billing_refund_delete", row.pk), {"post": "yes"}),
    ]
    assert [answer.status_code for answer in answers] == [403, 403, 403]


# Credits


@pytest.mark.parametrize("role", [*TREASURERS, "operator"])
@pytest.mark.parametrize("kind", ["cash", "gift"])
def test_a_user_is_credited_once_however_often_the_form_is_sent(till: Till, role: str, kind: str) -> None:
    client, where = browser(till, role), path(role, "tenants_enduser_credit", till.user.pk)
    assert where in client.get(path(role, "tenants_enduser_change", till.user.pk)).content.decode()
    assert client.get(where).status_code == 200
    asked = form(yuan="3.5", kind=kind, reason="sorry")
    with capture_logs() as logs:
        assert [client.post(where, asked).status_code for _ in range(2)] == [302, 302]
    amounts = {"cash": 0, "gift": 0, kind: 3_500_000}
    assert till.balances() == ledger.Balances(**amounts, pending=0)
    staff = StaffUser.objects.get(pk=client.session["_auth_user_id"])
    with scope.tenant(till.tenant.pk):
        transfer = Transfer.objects.get()
    assert (transfer.reason, transfer.actor) == ("sorry", staff.username)
    wanted = {"event": "user_credited", "staff": staff.pk, "user": till.user.pk, "amount": 3_500_000}
    assert wanted.items() <= next(log for log in logs if log["event"] == "user_credited").items()
    history = LogEntry.objects.filter(user=staff, object_id=str(till.user.pk)).latest("pk").change_message
    assert history == "¥3.50 credited. Reason: sorry"
    answer = client.post(where, asked | {"yuan": "4"})
    assert fields_of(answer) == {"__all__": ["This form was sent before with another amount."]}
    assert till.balances() == ledger.Balances(**amounts, pending=0)


@pytest.mark.parametrize("fields", [{"yuan": "0"}, {"yuan": "-5"}, {"yuan": "1e3"}, {"reason": ""}, {"kind": "debit"}])
def test_a_credit_that_is_none_is_refused(till: Till, fields: dict[str, str]) -> None:
    where = path("owner", "tenants_enduser_credit", till.user.pk)
    answer = browser(till, "owner").post(where, form(**{"kind": "cash", **fields}))
    assert (answer.status_code, list(fields_of(answer)), till.books()) == (200, list(fields), {})


def test_support_credits_nobody(till: Till) -> None:
    client, where = browser(till, "support"), path("support", "tenants_enduser_credit", till.user.pk)
    assert [client.get(where).status_code, client.post(where, form(kind="cash")).status_code] == [403, 403]
    page = client.get(path("support", "tenants_enduser_change", till.user.pk))
    assert (page.status_code, where in page.content.decode(), till.books()) == (200, False, {})


def test_users_are_still_edited_where_they_were(till: Till) -> None:
    client, where = browser(till, "operator"), path("operator", "tenants_enduser_change", till.user.pk)
    body = {"tenant": str(till.tenant.pk), "username": till.user.username, "nickname": "小王", "is_active": "on"}
    assert client.post(where, body).status_code == 302
    with scope.tenant(till.tenant.pk):
        assert EndUser.objects.get(pk=till.user.pk).nickname == "小王"


# The command


def run(till: Till, order: Order, /, **options: Any) -> str:
    asked = {"tenant": till.tenant.slug, "order": order.out_trade_no, "yuan": "5", "reason": "not wanted", **options}
    out = StringIO()
    call_command("refund", stdout=out, **asked)
    return out.getvalue()


def test_the_command_refunds(till: Till) -> None:
    order = till.sold()
    name = f"{order.out_trade_no} of {till.tenant.slug}"
    till.wechat.refusals.append("NOT_ENOUGH")
    assert run(till, order) == f"{name}: ¥5.00 failed (NOT_ENOUGH).\n"
    assert run(till, order) == f"{name}: ¥5.00 requested.\n"
    assert run(till, order, manual=True) == f"{name}: ¥5.00 done.\n"
    with scope.tenant(till.tenant.pk):
        actors = set(Refund.objects.values_list("requested_by", flat=True))
    assert {actor.startswith("command line, ") for actor in actors} == {True}


def test_the_command_says_what_is_wrong(till: Till, other: Till) -> None:
    order, theirs = till.sold(), other.sold()
    for options, why in [
        ({"tenant": "nobody"}, "no tenant"),
        ({"order": theirs.out_trade_no}, "has no order"),
        ({"yuan": "-1"}, "not an amount"),
        ({"yuan": "0.001"}, "whole fen"),
        ({"reason": " "}, "has a reason"),
        ({"yuan": "10.01"}, "¥10.00 can be refunded"),
    ]:
        with translation.override("en"), pytest.raises(CommandError, match=why):
            run(till, order, **options)
    assert (till.refunds(), other.refunds()) == ([], [])


# The audit


@pytest.fixture
def refunded(db: None, wechat: WeChatPayDouble) -> Till:
    """Refunds of every kind and state; not audited at the end."""
    till = open_till(wechat)
    order = till.sold()
    till.refund(order, 2 * YUAN)
    till.refund(order, 1 * YUAN, kind="manual")
    wechat.refusals.append("NOT_ENOUGH")
    till.refund(order, 3 * YUAN)
    till.spend(5 * YUAN)
    till.refund(order, 4 * YUAN, kind="forced", refund_id="1")
    return till


MOVED = (
    "UPDATE billing_entry SET amount = amount + sign(amount) WHERE tenant_id = %s AND transfer_id IN"
    " (SELECT id FROM billing_transfer WHERE kind = '{}' AND ref IN (SELECT id::text FROM billing_refund"
    " WHERE kind = '{}' AND state = '{}')) AND account_id IN (SELECT id FROM billing_account WHERE kind IN ({}))"
)


@pytest.mark.parametrize(
    ("statement", "invariants"),
    [
        ("UPDATE billing_refund SET amount = amount + 10000 WHERE tenant_id = %s AND state = 'requested'", ["I7"]),
        ("UPDATE billing_refund SET credits_back = credits_back + 1 WHERE tenant_id = %s AND kind = 'manual'", ["I7"]),
        ("UPDATE billing_refund SET shortfall = shortfall - 1 WHERE tenant_id = %s AND kind = 'forced'", ["I7"]),
        ("UPDATE billing_refund SET kind = 'provider' WHERE tenant_id = %s AND kind = 'manual'", ["I7"]),
        (
            "UPDATE billing_refund SET state = 'done', ended_at = now() WHERE tenant_id = %s AND state = 'requested'",
            ["I7"],
        ),
        ("UPDATE billing_refund SET state = 'failed' WHERE tenant_id = %s AND kind = 'manual'", ["I7"]),
        ("UPDATE billing_refund SET state = 'done' WHERE tenant_id = %s AND state = 'failed'", ["I7"]),
        ("DELETE FROM billing_refund WHERE tenant_id = %s AND state = 'failed'", ["I7"]),
        ("DELETE FROM billing_refund WHERE tenant_id = %s AND state = 'requested'", ["I7"]),
        ("UPDATE billing_order SET price = price - 4000000 WHERE tenant_id = %s", ["I7"]),
        ("UPDATE billing_order SET user_id = user_id + 1000000 WHERE tenant_id = %s", ["I7"]),
        (
            (
                "INSERT INTO billing_transfer (tenant_id, kind, ref, actor, reason)"
                " SELECT tenant_id, 'refund_paid', id, '', '' FROM billing_refund"
                " WHERE tenant_id = %s AND state = 'failed'"
            ),
            ["I1", "I7"],
        ),
        ("UPDATE billing_transfer SET ref = 'nothing' WHERE tenant_id = %s AND kind = 'refund_failed'", ["I7"]),
        (
            "UPDATE billing_account SET posted = posted + 1 WHERE tenant_id = %s AND kind = 'refund_payable'",
            ["I2", "I7"],
        ),
        (MOVED.format("refund", "manual", "done", "'user_cash', 'refund_payable'"), ["I2", "I7"]),
        (MOVED.format("refund", "forced", "done", "'shortfall'"), ["I1", "I2", "I7"]),
        (MOVED.format("refund_paid", "forced", "done", "'psp_clearing', 'refund_payable'"), ["I2", "I7"]),
        (MOVED.format("refund_failed", "provider", "failed", "'user_gift'"), ["I1", "I2", "I7"]),
    ],
)
def test_the_audit_finds_a_refund_without_its_books(refunded: Till, statement: str, invariants: list[str]) -> None:
    assert audit.audit_tenant(tenant_id=refunded.tenant.pk) == []
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in ("billing_transfer", "billing_order", "billing_refund", "billing_entry"):
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        cursor.execute("ALTER TABLE billing_order DROP CONSTRAINT billing_order_user_fk")
        cursor.execute(statement, [refunded.tenant.pk])
        assert cursor.rowcount > 0
        found = sorted({breach.invariant for breach in audit.audit_tenant(tenant_id=refunded.tenant.pk)})
    assert found == invariants
    transaction.set_rollback(True)


def test_what_the_audit_says_of_a_refund(refunded: Till) -> None:
    with scope.tenant(refunded.tenant.pk), connection.cursor() as cursor:
        row = Refund.objects.get(state="requested")
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE billing_refund DISABLE TRIGGER ALL")
        cursor.execute("UPDATE billing_refund SET amount = 1990000 WHERE id = %s", [row.pk])
    channel = f"wechat:{refunded.merchant.merchant_id}"
    assert [(breach.row, breach.found) for breach in audit.audit_tenant(tenant_id=refunded.tenant.pk)] == [
        (f"refunds owed by {channel}", "owed 2000000, refunds under way 1990000"),
        (f"refund {row.pk}", "requested 1990000, transfers 1/0/0, owed 2000000, taken 2400000, shortfall 0, paid 0"),
    ]
    assert (PRICE, CREDITS, BONUS) == (10 * YUAN, 10 * YUAN, 2 * YUAN)
    transaction.set_rollback(True)
