"""The demo's tenants with the built-in model: what somebody sees who has typed `make run`, and pays for it."""

import pytest
from django.utils import timezone

from billing import quota
from billing.models import Hold
from billing.tests.payments.conftest import open_package
from chat.models import UpstreamAccount
from saas.local import model
from saas.local.demo import FREE_PER_DAY, GROUP
from tenants import scope
from tenants.models import Tenant
from tests.browser.e2e_till import collect_by_wechat, comes_back, number_of_order
from tests.browser.visit import PHONE, Stack, Visits, ask, is_over, log_in, press, shown, told
from tests.doubles.line import line_to
from tests.factories import PASSWORD, make_token, make_user, unique
from tests.programs import expect_right_books
from tests.shop import YUAN, Person, Shop

# Long enough to be stopped, or cut, in the middle.
STORY = "Tell me a very long story about a banyan tree and the village around it."
QUESTION = "What is a banyan tree?"


@pytest.fixture
def aurora(visits: Visits) -> Shop:
    """The demo's first tenant, with somebody new who has money, a password, and no free answer left today."""
    return demo_tenant("aurora")


def demo_tenant(slug: str, *, cash: int = 20 * YUAN) -> Shop:
    tenant = Tenant.objects.get(slug=slug)
    user = make_user(tenant, username=unique("fig"), password=PASSWORD)
    day = quota.quota_day(now=timezone.now(), zone=tenant.timezone).date
    with scope.platform("a test asks which account the built-in model has"):
        account = UpstreamAccount.objects.get(name="Built-in model")
    with scope.tenant(tenant.pk):
        while quota.take(tenant_id=tenant.pk, user_id=user.pk, group=GROUP, day=day, limit=FREE_PER_DAY):
            pass
    person = Person(user=user, token=make_token(user))
    shop = Shop(tenant=tenant, host=f"{slug}.localhost", account=account, sku=model.NAME, alice=person)
    if cash:
        shop.credit(person, cash)
    return shop


def holds_of(shop: Shop) -> list[Hold]:
    return [hold for hold in shop.holds() if hold.user_id == shop.alice.user.pk]


def expect_charges(shop: Shop, *, count: int, had: int = 20 * YUAN) -> None:
    """So many answers, each charged once, and the books are right."""
    expect_right_books(shop)
    charges = [hold.charge for hold in holds_of(shop)]
    assert (len(charges), min(charges) > 0) == (count, True)
    assert shop.balance(shop.alice).available == had - sum(charges)


def test_somebody_logs_in_asks_and_stops(visits: Visits, aurora: Shop) -> None:
    with visits.page(aurora.host) as page:
        log_in(page, aurora.alice.user.username or "", PASSWORD)
        ask(page, QUESTION)
        page.locator(".answer-body .md").wait_for()
        is_over(page)
        assert [shown(page)] == told(aurora, aurora.alice)
        assert shown(page) != ""
        visits.shoot(page, "client-wide")
        ask(page, STORY)
        page.locator(".answer-body .md").nth(1).wait_for()
        press(page, "Stop")
        is_over(page)
        page.get_by_text("Stopped", exact=True).wait_for()
        assert shown(page) == told(aurora, aurora.alice)[1]
    assert [hold.reason for hold in holds_of(aurora)] == ["stop", "stopped"]
    expect_charges(aurora, count=2)


def test_an_answer_of_the_real_model_goes_on_after_an_offline_spell(visits: Visits, aurora: Shop) -> None:
    token = aurora.alice.token
    with line_to(visits.port) as line, visits.page(aurora.host, port=line.port, token=token, viewport=PHONE) as page:
        ask(page, STORY)
        page.locator(".answer-body .md").wait_for()
        page.context.set_offline(True)
        line.cut()
        page.get_by_text("Connection lost, reconnecting…").wait_for()
        page.context.set_offline(False)
        is_over(page)
        assert [shown(page)] == told(aurora, aurora.alice)
        assert len(shown(page).split()) > 100
    expect_charges(aurora, count=1)


def test_who_has_nothing_pays_and_is_answered_by_the_real_model(visits: Visits, stack: Stack) -> None:
    lotus = demo_tenant("lotus", cash=0)
    collect_by_wechat(lotus, stack)
    for slug, name, yuan in (("small", "小份", 10), ("medium", "中份", 30), ("large", "大份", 100)):
        open_package(
            lotus.tenant, slug=slug, name=name, price=yuan * YUAN, credits=yuan * YUAN, bonus=yuan * YUAN // 10
        )
    with visits.page(lotus.host) as page:
        log_in(page, lotus.alice.user.username or "", PASSWORD)
        ask(page, QUESTION)
        page.get_by_text("Pay with", exact=True).wait_for()
        page.get_by_role("radio", name="小份").click()
        press(page, "Pay ¥10.00")
        page.get_by_role("img", name="Scan with WeChat to pay").wait_for()
        visits.shoot(page, "client-pay")
        stack.wechat.pay(number_of_order(lotus))
        press(page, "I have paid")
        comes_back(page, QUESTION)
        press(page, "Send")
        page.locator(".answer-body .md").wait_for()
        is_over(page)
        assert [shown(page)] == told(lotus, lotus.alice)
    expect_charges(lotus, count=1, had=11 * YUAN)
