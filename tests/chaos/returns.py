"""More rows: money that goes back to payers, and on to resellers."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
from django.db import connection
from django.db.models import F, Sum
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse

from billing import commission, withdrawal
from billing.audit import audit, breaches_of
from billing.models import (
    Account,
    AuditRun,
    Commission,
    Order,
    PaymentEvent,
    PayoutBatch,
    Refund,
    Transfer,
    Withdrawal,
)
from billing.recharge import notify_path
from billing.tasks import audit_ledger, fold_commissions, poll_orders, poll_refunds
from billing.tests.payments.conftest import PRICE
from tenants import scope
from tenants.models import Reseller, StaffUser
from tests.chaos.rig import Rig, wait_for
from tests.chaos.rows import Row, bought, notify, open_orders, order_and_pay, selling, settled, web_request
from tests.clients.raw import ask
from tests.factories import make_operator, make_partner, make_reseller, make_staff, make_terms
from tests.shop import YUAN, Shop, open_shop


def whole_audit() -> None:
    """Fail where any tenant's books are wrong, or the platform's own."""
    breaches = breaches_of(audit())
    assert breaches == [], breaches


def at_once(times: int, call: Callable[[], Any]) -> list[Any]:
    """Call so often at the same time; return what came."""
    with ThreadPoolExecutor(times) as threads:
        return [result.result() for result in [threads.submit(call) for _ in range(times)]]


def staff_request(rig: Rig, host: str, staff: StaffUser, path: str, form: dict[str, Any]) -> int:
    """Send a form as a member of the staff who is logged in; return the answer's status."""
    browser, token = Client(headers={"host": host}), "c" * 32
    browser.force_login(staff)
    cookies = {"sessionid": browser.cookies["sessionid"].value, "csrftoken": token}
    sent = httpx.post(
        f"http://127.0.0.1:{rig.web_port}{path}",
        headers={
            "host": host,
            "x-csrftoken": token,
            "cookie": "; ".join(f"{key}={text}" for key, text in cookies.items()),
        },
        data=form,
        timeout=60,
    )
    return sent.status_code


def told_while_polled(rig: Rig, scale: int) -> str:
    """A payment's notification comes three times while the poll asks for it three times: credited once."""
    shop, account = selling(rig)
    for _ in range(scale):
        number = order_and_pay(rig, shop)
        with scope.tenant(shop.tenant.pk):
            Order.objects.filter(state="pending").update(next_poll_at=Now())
        for _ in range(3):
            poll_orders.delay()
        assert at_once(3, partial(notify, rig, shop, account, number)) == [200] * 3
        wait_for(partial(nothing_open, shop), "the order is paid")
    bought(shop, scale)
    with scope.tenant(shop.tenant.pk):
        outcomes = Counter(PaymentEvent.objects.values_list("outcome", flat=True))
    assert outcomes["credited"] == scale, outcomes
    assert set(outcomes) <= {"credited", "repeated"}, outcomes
    whole_audit()
    return f"{scale} payments, {3 * scale} notifications and {3 * scale} polls at once, {scale} credited"


def nothing_open(shop: Shop) -> bool:
    return not open_orders(shop)


def refund_interrupted(rig: Rig, scale: int) -> str:
    """kill -9 of the web between the provider's refund and our booking of it: found or told later, paid back once."""
    shop, account = selling(rig)
    owner = make_staff(shop.tenant)
    for told in [False, True] * scale:
        number = order_and_pay(rig, shop)
        assert notify(rig, shop, account, number) == 200
        killed_while_refunding(rig, shop, owner, number)
        ((state, refund_number),) = refunds(shop, number)
        assert (state, rig.wechat.refunds[refund_number].state) == ("requested", "SUCCESS")
        bought(shop, 0)  # what it is worth is taken already
        if told:
            assert at_once(3, partial(tell_of_refund, rig, shop, account, refund_number)) == [200] * 3
        else:
            with scope.tenant(shop.tenant.pk):
                Refund.objects.filter(state="requested").update(next_poll_at=Now())
            for _ in range(3):
                poll_refunds.delay()
        wait_for(partial(is_refunded, shop, number), "the refund is done")
    bought(shop, 0)
    assert len(rig.wechat.refunds) == 2 * scale
    with scope.tenant(shop.tenant.pk):
        made = Counter(Transfer.objects.filter(kind__startswith="refund").values_list("kind", flat=True))
    assert made == {"refund": 2 * scale, "refund_paid": 2 * scale}, made
    whole_audit()
    return f"{2 * scale} kills, {scale} found by asking, {scale} told thrice, {2 * scale} paid back and booked once"


def killed_while_refunding(rig: Rig, shop: Shop, owner: StaffUser, number: str) -> None:
    """Refund an order from its page; kill the web when the provider has answered and the order is to be written."""
    with scope.tenant(shop.tenant.pk):
        order = Order.objects.get(out_trade_no=number)
    path = reverse("tenant_admin:billing_order_refund", args=[order.pk])
    form = {"yuan": str(PRICE // YUAN), "kind": "provider", "reason": "chaos", "number": uuid4(), "confirmed": "yes"}
    cut: list[bool] = []

    def refund() -> None:
        try:
            staff_request(rig, shop.host, owner, path, form)
        except httpx.TransportError:
            cut.append(True)

    with rig.blocking("SELECT FROM billing_order WHERE id = %s FOR UPDATE", order.pk) as lock:
        rig.wechat.refunds_end, rig.wechat.on_refund = "SUCCESS", lock
        clerk = threading.Thread(target=refund)
        clerk.start()
        try:
            wait_for(somebody_waits, "the web waits to book what the provider has said")
            rig.kill("web")
        finally:
            rig.wechat.on_refund = None
            clerk.join()
    assert cut == [True]
    rig.start("web")


def somebody_waits() -> bool:
    """Whether a statement waits for a lock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%billing_order%'"
        )
        return bool(cursor.fetchone()[0])


def tell_of_refund(rig: Rig, shop: Shop, account: Any, refund_number: str) -> int:
    """Tell the product of a refund; return its answer's status."""
    body, headers = rig.wechat.refund_notification(refund_number)
    return web_request(
        rig, shop, notify_path(tenant=shop.tenant, account=account), content=body, headers=headers
    ).status_code


def refunds(shop: Shop, number: str) -> list[tuple[str, str]]:
    """Return state and number of an order's refunds."""
    with scope.tenant(shop.tenant.pk):
        return list(Refund.objects.filter(order__out_trade_no=number).values_list("state", "out_refund_no"))


def is_refunded(shop: Shop, number: str) -> bool:
    return [state for state, _number in refunds(shop, number)] == ["done"]


def resold(rig: Rig) -> tuple[Shop, Reseller, Reseller]:
    """Open a tenant of a reseller below another one, who both have earned by its answers."""
    parent = make_reseller()
    child = make_reseller(parent=parent)
    make_terms(parent, own_ppm=0, parent_ppm=100_000)
    make_terms(child, own_ppm=300_000, min_withdrawal=1, withdrawal_fee_ppm=100_000)
    shop = open_shop(rig.upstream_url, reseller=child)
    shop.offer("pace:200:0")
    for _ in range(3):
        ask(rig.web_port, shop.host, {"message": "x"}, token=shop.alice.token)
    settled(shop)
    return shop, child, parent


def posted(reseller: Reseller | None, kind: str, channel: str = "") -> int:
    """Return what a reseller's account has, or the platform's own."""
    with scope.platform("chaos"):
        rows = Account.objects.filter(reseller=reseller, kind=kind, channel=channel)
        return sum((rows if reseller else rows.filter(tenant=None)).values_list("posted", flat=True))


def audits_since(before: int, times: int) -> bool:
    """Whether so many audits have run since there were `before` of them."""
    return AuditRun.objects.exclude(ended_at=None).count() >= before + times


def folded_thrice(rig: Rig, scale: int) -> str:
    """The nightly fold of commissions is delivered three times at once: folded once, each reseller's share whole."""
    earned = 0
    for _ in range(scale):
        shop, child, parent = resold(rig)
        shares = [sum(hold.own_share for hold in shop.holds()), sum(hold.parent_share for hold in shop.holds())]
        assert [posted(reseller, "reseller_accrued") for reseller in (child, parent)] == shares
        audits = AuditRun.objects.exclude(ended_at=None).count()
        for _ in range(3):
            fold_commissions.delay()
        for _ in range(2):  # both workers are past the folds then
            audit_ledger.delay()
        wait_for(partial(audits_since, audits, 2), "the folds have run")
        with scope.tenant(shop.tenant.pk):
            found = list(Commission.objects.order_by("level").values_list("reseller", "amount"))
            folds = Transfer.objects.filter(kind="commission").count()
        assert (found, folds) == ([(child.pk, shares[0]), (parent.pk, shares[1])], 2), (found, folds)
        assert [posted(reseller, "reseller_accrued") for reseller in (child, parent)] == [0, 0]
        earned += sum(shares)
    whole_audit()
    return f"{3 * scale} deliveries, {2 * scale} commissions, {earned} micro-yuan"


def batch_confirmed_twice(rig: Rig, scale: int) -> str:
    """A payout batch is confirmed twice at once, and what the bank did told twice: sent, paid or returned once."""
    _shop, child, _parent = resold(rig)
    commission.fold_day()
    with scope.platform("chaos"):
        Commission.objects.filter(reseller=child).update(release_at=F("release_at") - timedelta(days=366))
    commission.release_matured()
    had = posted(child, "reseller_available")
    maker, operator = make_partner(child), make_operator()
    cleared, earned = posted(None, "psp_clearing", withdrawal.PAYOUT), posted(None, "platform_revenue")
    each, payout = had // (2 * scale), 0
    assert each > 10, had
    for _ in range(scale):
        good, bad = (
            withdrawal.request(
                reseller_id=child.pk, amount=each, payee="Grove", bank="ICBC", bank_account="6222", maker_id=maker.pk
            )
            for _ in range(2)
        )
        act = partial(platform_action, rig, operator)
        for action in ("approve", "put_in_batch"):
            assert act(Withdrawal, action, good.pk, bad.pk) == 302
        batch = PayoutBatch.objects.get(withdrawals=good)
        assert at_once(2, partial(act, PayoutBatch, "mark_sent", batch.pk)) == [302] * 2
        for action, row in (("mark_paid", good), ("mark_failed", bad)):
            assert at_once(2, partial(act, Withdrawal, action, row.pk)) == [302] * 2
        payout += good.payout
    states = Counter(Withdrawal.objects.filter(reseller=child).values_list("state", flat=True))
    assert states == {"paid": scale, "failed": scale}, states
    fees = Withdrawal.objects.filter(reseller=child, state="paid").aggregate(sum=Sum("fee"))["sum"]
    assert posted(child, "withdrawal_payable") == 0
    assert posted(child, "reseller_available") == had - scale * each
    assert posted(None, "psp_clearing", withdrawal.PAYOUT) - cleared == payout
    assert posted(None, "platform_revenue") - earned == fees
    whole_audit()
    return f"{scale} batches confirmed twice, {scale} paid ({payout} micro-yuan, {fees} fees), {scale} returned"


def platform_action(rig: Rig, operator: StaffUser, model: type[Any], action: str, *rows: object) -> int:
    """Run an action of the operator's site as its pages do; return the answer's status."""
    path = reverse(f"admin:billing_{model.__name__.lower()}_changelist")
    form = {"action": action, "_selected_action": [str(row) for row in rows], "reason": "chaos"}
    return staff_request(rig, "localhost", operator, path, form)


ROWS: tuple[Row, ...] = (told_while_polled, refund_interrupted, folded_thrice, batch_confirmed_twice)
