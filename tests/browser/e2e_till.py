"""From a refusal for want of money to the answer: over each channel, with the provider's double at the other end."""

from typing import Any

from billing.models import MerchantAccount, Order
from billing.tests.payments.conftest import open_account, open_package
from tenants import scope
from tests.browser.visit import (
    PHONE,
    Stack,
    Visits,
    ask,
    enter_as_guest,
    is_over,
    open_door,
    press,
    shown,
    told,
    wait_until,
)
from tests.doubles import alipay
from tests.doubles.wechatpay import Merchant
from tests.factories import set_free_quota
from tests.programs import expect_right_books, wait_for
from tests.shop import Shop


def collect_by_wechat(shop: Shop, stack: Stack) -> None:
    merchant = Merchant(merchant_id=str(1_900_000_000 + shop.tenant.pk), app_id="wx0123456789abcdef")
    open_account(shop.tenant, merchant)
    stack.wechat.merchants[merchant.merchant_id] = merchant


def collect_by_alipay(shop: Shop, stack: Stack) -> None:
    number = f"{shop.tenant.pk:012d}"
    merchant = alipay.Merchant(merchant_id=f"2088{number}", app_id=f"2021{number}")
    stack.alipay.merchants[merchant.app_id] = merchant
    with scope.tenant(shop.tenant.pk):
        MerchantAccount.objects.create(
            tenant=shop.tenant,
            channel="alipay",
            merchant_id=merchant.merchant_id,
            app_id=merchant.app_id,
            private_key=alipay.key_text(merchant.key),
            platform_public_key=alipay.public_key_text(stack.alipay.key),
        )


def number_of_order(shop: Shop) -> str:
    """Return the number that the provider knows the tenant's only order by."""
    with scope.tenant(shop.tenant.pk):
        wait_for(Order.objects.exists)
        return str(Order.objects.get().out_trade_no)


def comes_back(page: Any, text: str) -> None:
    """From the paid order to the chat, where the question waits in its field."""
    page.get_by_text("Paid", exact=True).wait_for()
    press(page, "Back to the chat")
    wait_until(page, f"document.querySelector('.composer-text textarea')?.value === '{text}'")


def comes_back_and_asks(page: Any, shop: Shop, text: str) -> None:
    """Sent again, the question is answered."""
    comes_back(page, text)
    press(page, "Send")
    page.locator(".answer-body .md").wait_for()
    is_over(page)
    assert (shown(page), told(shop)) == (text, [text])
    with scope.tenant(shop.tenant.pk):
        assert list(Order.objects.values_list("state", flat=True)) == ["paid"]


def test_who_cannot_pay_is_led_to_wechat_pay_and_back_to_the_answer(
    visits: Visits, stack: Stack, upstream_url: str
) -> None:
    shop = open_door(upstream_url)
    shop.offer("echo", is_default=True)
    collect_by_wechat(shop, stack)
    open_package(shop.tenant, slug="ten", name="Ten")
    with visits.page(shop.host, token=shop.alice.token) as page:
        ask(page, "what is a banyan")
        press(page, "Pay ¥10.00")
        page.get_by_text("Scan with WeChat to pay").last.wait_for()
        page.get_by_role("img", name="Scan with WeChat to pay").wait_for()
        stack.wechat.pay(number_of_order(shop))
        press(page, "I have paid")
        comes_back_and_asks(page, shop, "what is a banyan")
    expect_right_books(shop)


def test_who_cannot_pay_is_led_to_alipay_and_back_to_the_answer(
    visits: Visits, stack: Stack, upstream_url: str
) -> None:
    shop = open_door(upstream_url)
    shop.offer("echo", is_default=True)
    collect_by_wechat(shop, stack)
    collect_by_alipay(shop, stack)
    open_package(shop.tenant, slug="ten", name="Ten")
    with visits.page(shop.host, token=shop.alice.token) as page:
        ask(page, "what is a fig")
        page.get_by_text("Pay with", exact=True).wait_for()
        page.get_by_text("Alipay", exact=True).click()
        with page.context.expect_page() as opened:
            press(page, "Pay ¥10.00")
        opened.value.get_by_role("link", name="Pay 10.00").click()
        opened.value.get_by_text("Thank you").wait_for()
        opened.value.close()
        press(page, "I have paid")
        comes_back_and_asks(page, shop, "what is a fig")
    expect_right_books(shop)


def test_a_phone_goes_to_alipays_page_and_comes_back(visits: Visits, stack: Stack, upstream_url: str) -> None:
    shop = open_door(upstream_url)
    shop.offer("echo", is_default=True)
    collect_by_alipay(shop, stack)
    open_package(shop.tenant, slug="ten", name="Ten")
    till = stack.alipay.url.removeprefix("http://")
    with visits.page(shop.host, token=shop.alice.token, viewport=PHONE, may_ask=till) as page:
        ask(page, "what is a fig")
        press(page, "Pay ¥10.00")
        page.get_by_role("link", name="Pay 10.00").click()
        page.get_by_text("Thank you").wait_for()
        number = number_of_order(shop)
        order = f"{number[:8]}-{number[8:12]}-{number[12:16]}-{number[16:20]}-{number[20:]}"
        # Alipay leads back by the return address, which is the tenant's, over TLS.
        assert stack.alipay.trades[number].asked["return_url"].startswith(f"https://{shop.host}/")
        page.goto(f"http://{shop.host}:{visits.port}/#/pages/order/index?id={order}")
        press(page, "I have paid")
        comes_back_and_asks(page, shop, "what is a fig")
    expect_right_books(shop)


def test_a_guest_whose_trial_is_over_signs_up_and_buys(visits: Visits, stack: Stack, upstream_url: str) -> None:
    shop = open_door(upstream_url)
    shop.offer("echo", is_default=True)
    set_free_quota(shop.tenant.pk, per_day=0, guests=1)
    collect_by_wechat(shop, stack)
    open_package(shop.tenant, slug="ten", name="Ten")
    with visits.page(shop.host) as page:
        enter_as_guest(page)
        ask(page, "one")
        is_over(page)
        ask(page, "two")
        # Paying does not help a guest, whose purse would be gone with the device: the bubble says what does.
        page.get_by_text("Your trial is used up. Please sign up to go on.").wait_for()
        press(page, "Profile")
        press(page, "Log in")
        press(page, "No account? Sign up")
        page.get_by_role("textbox", name="User name").fill(f"fig-{shop.tenant.pk}")
        page.get_by_role("textbox", name="Password").fill("a-password-for-tests-7")
        press(page, "Sign up")
        page.get_by_role("button", name="Log out", exact=True).wait_for()
        press(page, "Back")
        press(page, "Top up")
        press(page, "Pay ¥10.00")
        page.get_by_text("Waiting for payment").wait_for()
        stack.wechat.pay(number_of_order(shop))
        press(page, "I have paid")
        page.get_by_text("Paid", exact=True).wait_for()
        press(page, "Back to the chat")
        # The guest's conversation is the person's.
        page.locator(".pane-row .pane-item").first.click()
        page.locator(".answer-body .md", has_text="one").wait_for()
        ask(page, "three")
        page.locator(".answer-body .md", has_text="three").wait_for()
        is_over(page)
    expect_right_books(shop)
    assert [answer for answer in told(shop) if answer] == ["one", "three"]
