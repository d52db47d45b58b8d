"""I11: what the providers' daily bills say is what the books say."""

from datetime import date, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from billing import audit
from billing.models import Bill, BillLine, Refund
from billing.reconcile import ZONE
from billing.tests.payments.conftest import PRICE, Till, open_till
from tenants import scope
from tests.doubles.wechatpay import WeChatPayDouble
from tests.factories import YUAN


def today() -> date:
    return timezone.now().astimezone(ZONE).date()


@pytest.fixture
def sold(db: None, wechat: WeChatPayDouble) -> Till:
    """A till with a paid order; not audited at the end."""
    till = open_till(wechat)
    number = till.number(till.buy())
    wechat.pay(number)
    till.deliver(wechat.notification(number))
    return till


def bill(till: Till, day: date, *amounts: int, **changes: Any) -> None:
    """Keep a bill of a day that has these lines of the till's first order."""
    with scope.tenant(till.tenant.pk):
        order = till.order(next(iter(till.wechat.trades)))
        kept = Bill.objects.create(
            tenant=till.tenant, merchant_account=till.account, day=day, fetched_at=timezone.now()
        )
        for amount in amounts:
            line = {"transaction_id": order.transaction_id, "order": order, **changes}
            BillLine.objects.create(tenant=till.tenant, bill=kept, amount=amount, **line)


def found(till: Till) -> list[str]:
    breaches = audit.audit_tenant(tenant_id=till.tenant.pk)
    assert {breach.invariant for breach in breaches} <= {"I11"}
    return [f"{breach.row.split()[0]}: {breach.found}" for breach in breaches]


def test_a_bill_that_has_the_payment_agrees(sold: Till) -> None:
    bill(sold, today(), PRICE)
    bill(sold, today() + timedelta(days=2))
    assert found(sold) == []


def test_nothing_is_said_of_a_time_without_bills(sold: Till) -> None:
    assert found(sold) == []
    bill(sold, today() + timedelta(days=1))  # the order was made before
    bill(sold, today() + timedelta(days=3))
    assert found(sold) == []


def test_a_payment_that_no_bill_has_is_found_once_its_day_is_over(sold: Till) -> None:
    bill(sold, today())
    assert found(sold) == []  # it may be in tomorrow's
    bill(sold, today() + timedelta(days=2))
    assert [text.split(":")[0] for text in found(sold)] == ["order"]
    assert found(sold)[0].endswith("lines in bills 0")


def test_a_payment_that_two_bills_have_is_found(sold: Till) -> None:
    bill(sold, today(), PRICE)
    bill(sold, today() + timedelta(days=2), PRICE)
    assert [text.rpartition(" ")[2] for text in found(sold)] == ["2"]


@pytest.mark.parametrize("changes", [{"transaction_id": "4200009"}, {}])
def test_a_line_of_another_payment_or_amount_is_found(sold: Till, changes: dict[str, Any]) -> None:
    bill(sold, today(), PRICE if changes else PRICE + 10_000, **changes)
    assert [text.split(":")[0] for text in found(sold)] == ["bill"]


def test_a_line_of_an_order_that_is_not_paid_here_is_found(sold: Till) -> None:
    bill(sold, today(), PRICE)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE billing_order DISABLE TRIGGER ALL")
        cursor.execute(
            "UPDATE billing_order SET state = 'closed', paid_at = NULL, closed_at = now(), transaction_id = ''"
            " WHERE tenant_id = %s",
            [sold.tenant.pk],
        )
        breaches = audit.audit_tenant(tenant_id=sold.tenant.pk)
    assert {breach.invariant for breach in breaches} == {"I7", "I11"}
    transaction.set_rollback(True)


def test_a_refund_that_the_books_do_not_know_is_found(sold: Till) -> None:
    bill(sold, today(), PRICE, -YUAN)
    assert [text.rpartition(", ")[2] for text in found(sold)] == ["which the books do not know"]


def test_a_refund_that_has_not_ended_here_is_found(sold: Till) -> None:
    with scope.tenant(sold.tenant.pk):
        order = sold.order(next(iter(sold.wechat.trades)))
        refund = Refund.objects.create(
            tenant=sold.tenant,
            order=order,
            out_refund_no="1",
            kind="provider",
            amount=YUAN,
            reason="test",
            requested_by="test",
        )
    bill(sold, today(), PRICE)
    bill(sold, today() + timedelta(days=1), -YUAN, refund=refund)
    breaches = [breach for breach in audit.audit_tenant(tenant_id=sold.tenant.pk) if breach.invariant == "I11"]
    assert [breach.found for breach in breaches] == [f"paid back {YUAN}, refund {refund.pk} requested of {YUAN}"]


def test_another_tenants_bill_is_not_this_ones(sold: Till, other: Till) -> None:
    bill(sold, today(), PRICE + 10_000)
    assert audit.audit_tenant(tenant_id=other.tenant.pk) == []
