"""Plans over the JSON API and WeChat Pay: ordered, paid, seen by their buyer and by nobody else."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing import holds, ledger, rewards
from billing.models import Invitation, Order, Plan, Refund, Subscription
from billing.origins import origin_of
from billing.tests.payments.conftest import Till
from tenants import scope
from tests.factories import (
    credit,
    fill_wallet,
    hold_request,
    make_cap,
    make_plan,
    make_rules,
    make_sku,
    make_token,
    make_user,
    set_free_quota,
    subscribe,
)

PRICE = 19_900_000


def ask(till: Till, **changes: Any) -> tuple[int, dict[str, Any]]:
    return till.api("POST", "/api/billing/orders", {"channel": "wechat", "method": "native", **changes})


def order(till: Till, plan: Plan, **changes: Any) -> str:
    """Order a plan; return the order's number."""
    status, said = ask(till, plan=plan.slug, **changes)
    assert status == 200, said
    return till.number(said["data"])


def wire(moment: datetime) -> str:
    """Return a moment as the API writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def subscriptions(till: Till) -> list[Subscription]:
    with scope.tenant(till.tenant.pk):
        return list(Subscription.objects.order_by("pk"))


def data(till: Till, path: str, *, token: str = "") -> Any:
    status, said = till.api("GET", f"/api/billing/{path}", token=token)
    assert status == 200, said
    return said["data"]


def test_what_plans_are_on_sale(till: Till, other: Till) -> None:
    make_plan(other.tenant)
    make_plan(till.tenant, is_enabled=False)
    plan = make_plan(till.tenant, name="月卡", badge="热卖", allowances={"small": (500, "term"), "big": (9, "day")})
    assert data(till, "plans") == [
        {
            "slug": plan.slug,
            "name": "月卡",
            "price": "19900000",
            "days": 30,
            "badge": "热卖",
            "limit_per_user": 0,
            "virtual": False,
            "allowances": [
                {"quota_group": "big", "answers": 9, "period": "day"},
                {"quota_group": "small", "answers": 500, "period": "term"},
            ],
        }
    ]


def test_a_plan_is_ordered_paid_and_good(till: Till) -> None:
    plan = make_plan(till.tenant, name="月卡")
    number = order(till, plan)
    asked = till.wechat.trades[number].asked
    assert (asked["amount"], asked["description"]) == ({"total": PRICE // 10_000, "currency": "CNY"}, "月卡")
    assert subscriptions(till) == []
    till.wechat.pay(number)
    for _ in range(2):
        assert till.deliver(till.wechat.notification(number))[0] == 200
    (bought,) = subscriptions(till)
    assert (bought.user_id, bought.plan_id, bought.name) == (till.user.pk, plan.pk, "月卡")
    assert till.balances() == ledger.Balances(cash=0, gift=0, pending=0)
    assert till.books() == {f"psp_clearing:wechat:{till.merchant.merchant_id}": -PRICE, "tenant_revenue": PRICE}


def test_a_late_payment_of_a_closed_order_begins_the_plan(till: Till) -> None:
    number = order(till, make_plan(till.tenant))
    till.close(number)
    till.wechat.pay(number)
    assert till.deliver(till.wechat.notification(number))[0] == 200
    assert len(subscriptions(till)) == 1


def test_another_amount_begins_nothing(till: Till) -> None:
    number = order(till, make_plan(till.tenant))
    with scope.tenant(till.tenant.pk):
        Order.objects.update(price=PRICE + 10_000)
    till.wechat.pay(number)
    assert till.deliver(till.wechat.notification(number))[0] == 409
    assert subscriptions(till) == []


def test_an_open_order_of_a_plan_is_given_again_while_its_terms_are_the_same(till: Till) -> None:
    plan = make_plan(till.tenant)
    first = order(till, plan)
    assert order(till, plan) == first
    assert till.number(till.buy()) != first  # a package's
    with scope.tenant(till.tenant.pk):
        plan.allowances.update(answers=3)
    assert order(till, plan) != first


def test_a_plan_with_a_limit(till: Till) -> None:
    plan = make_plan(till.tenant, limit_per_user=1)
    number = order(till, plan)
    status, said = ask(till, plan=plan.slug, method="h5")
    assert (status, said["type"], said["scope"], said["action"], said["used"], said["limit"]) == (
        429,
        "plan_limit_reached",
        "plan",
        "wait",
        1,
        1,
    )
    assert datetime.fromisoformat(said["reset_at"]) == till.order(number).expires_at
    till.wechat.pay(number)
    till.deliver(till.wechat.notification(number))
    said = ask(till, plan=plan.slug, method="h5")[1]
    assert (said["action"], said["reset_at"]) == ("choose_other", None)


def paid(till: Till, plan: Plan) -> Order:
    """Sell a plan and bring its payment; return the order."""
    number = order(till, plan)
    till.wechat.pay(number)
    assert till.deliver(till.wechat.notification(number))[0] == 200
    return till.order(number)


def end(till: Till, refund: Refund, state: str) -> None:
    """Let WeChat end a refund and tell of it, twice."""
    till.wechat.refunds[refund.out_refund_no].state = state
    for _ in range(2):
        assert till.deliver(till.wechat.refund_notification(refund.out_refund_no))[0] == 200


def test_a_plan_ends_when_its_refund_is_paid(till: Till) -> None:
    sold = paid(till, make_plan(till.tenant))
    refund = till.refund(sold, PRICE)
    assert (refund.state, refund.credits_back, refund.bonus_back, refund.shortfall) == ("requested", 0, 0, 0)
    assert [row.ended_at for row in subscriptions(till)] == [None]
    end(till, refund, "SUCCESS")
    assert [row.ended_at is None for row in subscriptions(till)] == [False]
    assert till.books() == {}
    assert till.balances() == ledger.Balances(cash=0, gift=0, pending=0)


def test_a_plan_stays_where_its_refund_fails(till: Till) -> None:
    sold = paid(till, make_plan(till.tenant))
    end(till, till.refund(sold, PRICE), "CLOSED")
    (kept,) = subscriptions(till)
    assert (kept.ended_at, kept.ends_at - kept.starts_at) == (None, timedelta(days=30))
    assert till.books() == {f"psp_clearing:wechat:{till.merchant.merchant_id}": -PRICE, "tenant_revenue": PRICE}


def test_parts_of_a_plan_are_refunded_by_hand(till: Till) -> None:
    sold = paid(till, make_plan(till.tenant))
    for left in (15, 0):
        till.refund(sold, PRICE // 2, kind="manual")
        (bought,) = subscriptions(till)
        assert round((bought.ends_at - bought.starts_at) / timedelta(days=1)) == left or bought.ended_at is not None
    assert bought.ended_at is not None


def test_a_payment_for_a_plan_vests_an_invitation(till: Till) -> None:
    make_rules(till.tenant)
    with scope.tenant(till.tenant.pk):
        code = rewards.code_of(user=make_user(till.tenant))
        rewards.accept_invitation(
            user=till.user, code=code, origin=origin_of(tenant_id=till.tenant.pk, device_id="a", address="198.51.100.7")
        )
    paid(till, make_plan(till.tenant))
    with scope.tenant(till.tenant.pk):
        assert Invitation.objects.get().state == "vested"


@pytest.mark.parametrize("what", [{}, {"package": "a", "plan": "b"}, {"package": "", "plan": ""}])
def test_an_order_is_for_a_package_or_a_plan(till: Till, what: dict[str, str]) -> None:
    status, said = ask(till, **what)
    assert (status, said["type"], said["fields"]) == (400, "invalid_request", ["plan"])


def test_only_what_is_on_sale_here_can_be_ordered(till: Till, other: Till) -> None:
    for plan in (make_plan(till.tenant, is_enabled=False), make_plan(other.tenant)):
        status, said = ask(till, plan=plan.slug)
        assert (status, said["type"]) == (404, "plan_not_found")


def test_one_s_own_subscriptions(till: Till) -> None:
    plan = make_plan(till.tenant, name="月卡")
    first, second = subscribe(till.user, plan), subscribe(till.user, plan)
    stranger = make_token(make_user(till.tenant))
    shown = data(till, "subscriptions")
    assert [(row["plan"], row["name"], row["ended_at"], row["allowances"]) for row in shown] == [
        (plan.slug, "月卡", None, [{"quota_group": "default", "answers": 2, "period": "day"}])
    ] * 2
    assert [row["starts_at"] for row in shown] == [shown[1]["ends_at"], wire(first.starts_at)]
    assert wire(second.starts_at) == wire(first.ends_at)
    assert data(till, "subscriptions", token=stranger) == []


def test_one_s_own_quota(till: Till) -> None:
    fill_wallet(till.tenant)
    sku = make_sku(till.tenant)
    bought = subscribe(till.user, make_plan(till.tenant, name="月卡", allowances={"big": (5, "term")}))
    set_free_quota(till.tenant.pk, per_day=3, guests=1)
    make_cap(till.tenant, 10, quota_group="big")
    make_cap(till.tenant, 50_000_000, measure="spend", period="month")
    make_cap(till.tenant, 99, scope="tenant")
    make_cap(till.tenant, 98, scope="one_user", user=make_user(till.tenant))
    credit(till.user, 8000)
    for group in ("big", "default", "none"):
        hold = holds.admit(hold_request(till.user, sku, quota_group=group))
    shown = data(till, "quota")
    midnight = shown["groups"][1]["free"].pop("reset_at")
    month = shown["caps"][1].pop("reset_at")
    assert shown == {
        "groups": [
            {
                "quota_group": "big",
                "free": None,
                "plans": [{"name": "月卡", "period": "term", "used": 1, "limit": 5, "reset_at": wire(bought.ends_at)}],
            },
            {"quota_group": "default", "free": {"used": 1, "limit": 3}, "plans": []},
        ],
        "caps": [
            {"measure": "answers", "period": "day", "quota_group": "big", "used": 1, "limit": 10, "reset_at": midnight},
            {"measure": "spend", "period": "month", "quota_group": "", "used": "8000", "limit": "50000000"},
        ],
    }
    assert timedelta() < datetime.fromisoformat(midnight) - hold.created_at <= timedelta(days=1)
    assert timedelta() < datetime.fromisoformat(month) - hold.created_at <= timedelta(days=31)


def test_a_guest_s_quota_never_comes_back(till: Till) -> None:
    set_free_quota(till.tenant.pk, per_day=3, guests=2)
    guest = make_token(make_user(till.tenant, is_guest=True))
    assert data(till, "quota", token=guest) == {
        "groups": [{"quota_group": "default", "free": {"used": 0, "limit": 2, "reset_at": None}, "plans": []}],
        "caps": [],
    }


def test_another_tenant_s_rules_are_not_shown(till: Till, other: Till) -> None:
    set_free_quota(other.tenant.pk, per_day=3)
    make_cap(other.tenant, 1)
    subscribe(other.user, make_plan(other.tenant))
    assert data(till, "quota") == {"groups": [], "caps": []}
    assert data(till, "subscriptions") == []
