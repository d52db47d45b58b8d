"""Purchases that a client under review, or on iOS, is not shown, and cannot make."""

from typing import Any

import pytest

from billing.models import Order
from billing.tests.payments.conftest import Till
from tenants import scope
from tenants.models import Compliance
from tests.factories import make_mini_program, make_plan

LISTS = ("packages", "plans", "channels")


def hide(till: Till, **rules: Any) -> None:
    with scope.tenant(till.tenant.pk):
        Compliance.objects.create(tenant=till.tenant, **rules)


def lists(till: Till, query: str = "") -> list[tuple[int, Any]]:
    """Return how many things each list has, and why there are none."""
    said = [till.api("GET", f"/api/billing/{name}{query}")[1] for name in LISTS]
    return [(len(one["data"]), one.get("hidden")) for one in said]


def order(till: Till, query: str = "", **client: str) -> tuple[int, dict[str, Any]]:
    body = {"package": till.package.slug, "channel": "wechat", "method": "native", **client}
    return till.api("POST", f"/api/billing/orders{query}", body)


def orders(till: Till) -> int:
    with scope.tenant(till.tenant.pk):
        return Order.objects.count()


@pytest.mark.parametrize(
    ("rules", "query", "client", "reason"),
    [
        ({"hide_on_ios": True}, "?platform=ios", {"platform": "ios"}, "ios"),
        ({"review_version": "2.1"}, "?version=2.1", {"version": "2.1"}, "review"),
    ],
)
def test_nothing_is_sold_there_and_everything_elsewhere(
    till: Till, other: Till, rules: dict[str, Any], query: str, client: dict[str, str], reason: str
) -> None:
    make_plan(till.tenant)
    make_plan(other.tenant)
    hide(till, **rules)
    hidden = {"reason": reason, "msg": "Nothing can be bought here."}
    assert lists(till, query) == [(0, hidden)] * 3
    status, said = order(till, **client)
    assert (status, {name: said[name] for name in ("code", "type", "scope", "action", "reason", "msg")}) == (
        400,
        {"code": 10001, "type": "purchases_hidden", "scope": "client", "action": "", **hidden},
    )
    assert orders(till) == 0
    # Another client of the same tenant, and the same client of another.
    assert lists(till) == lists(other, query) == [(1, None)] * 3
    assert (order(till)[0], order(other, **client)[0]) == (200, 200)


def test_a_plan_is_a_purchase_too(till: Till) -> None:
    plan = make_plan(till.tenant)
    hide(till, hide_on_ios=True)
    assert order(till, package="", plan=plan.slug, platform="ios")[1]["type"] == "purchases_hidden"


def test_a_mini_program_that_says_nothing_is_known_by_wechats_referer(till: Till) -> None:
    hide(till, review_version="0")
    app_id = make_mini_program(till.tenant).app_id
    for version, wanted in (("0", "purchases_hidden"), ("17", "ok")):
        till.client.defaults["HTTP_REFERER"] = f"https://servicewechat.com/{app_id}/{version}/page-frame.html"
        assert order(till)[1].get("type", "ok") == wanted


def test_what_was_ordered_before_is_paid_and_seen_all_the_same(till: Till) -> None:
    """A review hides what is sold; it takes nothing from who has bought."""
    bought = till.buy()
    hide(till, hide_on_ios=True, review_version="2.1")
    till.wechat.pay(till.number(bought))
    path = f"/api/billing/orders/{bought['order']['id']}/recheck?platform=ios&version=2.1"
    status, said = till.api("POST", path)
    assert (status, said["data"]["state"]) == (200, "paid")
    assert till.api("GET", "/api/billing/balance")[1]["data"]["available"] == "12000000"
