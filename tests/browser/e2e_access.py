"""Without a mouse, and without eyes: axe on every page in both themes, and the keyboard all the way to a paid order."""

from typing import Any

import pytest

from billing.tests.payments.conftest import open_package
from tests.browser.e2e_till import collect_by_wechat, number_of_order
from tests.browser.visit import PHONE, WIDE, Stack, Tools, Visits, ask, is_over, open_door, press
from tests.factories import make_plan, make_rules
from tests.shop import YUAN, Shop

PAGES = ("chat", "login", "roles", "recharge", "wallet", "redeem", "invite", "profile", "account", "news", "about")
ANSWER = (
    "# Figs\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```py\nprint('fig')\n```\n\n$x^2$ and [a link](https://example.com)"
)
TILL = "wx.tenpay.com"
FOCUSED = "document.activeElement.getAttribute('aria-label') || document.activeElement.innerText.trim()"


def furnished(upstream_url: str, stack: Stack) -> Shop:
    """Open a shop that has something on every page."""
    shop = open_door(upstream_url, cash=20 * YUAN)
    shop.offer("echo", is_default=True)
    shop.offer("count:9")
    make_plan(shop.tenant)
    make_rules(shop.tenant)
    collect_by_wechat(shop, stack)
    for name in ("Ten", "Twenty"):
        open_package(shop.tenant, slug=name.lower(), name=name)
    return shop


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, WIDE], ids=["phone", "wide"])
def test_axe_finds_nothing_serious_on_any_page(
    visits: Visits, stack: Stack, tools: Tools, upstream_url: str, theme: str, viewport: dict[str, int]
) -> None:
    shop = furnished(upstream_url, stack)
    found: dict[str, list[str]] = {}
    looks: dict[str, Any] = {"viewport": viewport, "color_scheme": theme, "reduced_motion": "reduce"}
    with visits.page(shop.host, token=shop.alice.token, may_ask=TILL, **looks) as page:
        # A phone is sent to WeChat's own page; here it has nothing to show, so ours stays.
        page.route(f"https://{TILL}/**", lambda route: route.fulfill(status=204))
        for name in PAGES:
            page.goto(f"http://{shop.host}:{visits.port}/?{name}#/pages/{name}/index")
            page.get_by_role("heading", level=1).last.wait_for()
            page.wait_for_load_state("networkidle")
            found[name] = tools.axe(page)
        page.goto(f"http://{shop.host}:{visits.port}/?order#/pages/recharge/index")
        press(page, "Pay ¥10.00")
        page.get_by_text("Waiting for payment").wait_for()
        found["order"] = tools.axe(page)
        page.goto(f"http://{shop.host}:{visits.port}/")
        ask(page, ANSWER)
        page.locator(".answer-body .md table").wait_for()
        is_over(page)
        found["an answer"] = tools.axe(page)
        if viewport == PHONE:
            press(page, "Conversations")
            page.locator(".drawer").wait_for()
            found["the drawer"] = tools.axe(page)
            page.keyboard.press("Escape")
        for label in ("Choose a model", "Choose an assistant", "Receipt of this answer", "Report", "Share"):
            page.get_by_role("button", name=label, exact=True).last.click()
            page.get_by_role("dialog").last.wait_for()
            found[label] = tools.axe(page)
            page.keyboard.press("Escape")
            page.get_by_role("dialog").last.wait_for(state="hidden")
    assert {name: problems for name, problems in found.items() if problems} == {}


def test_an_order_is_made_and_paid_by_the_keyboard_alone(visits: Visits, stack: Stack, upstream_url: str) -> None:
    shop = furnished(upstream_url, stack)
    with visits.page(shop.host, token=shop.alice.token) as page:

        def tab_to(name: str) -> None:
            for _ in range(60):
                page.keyboard.press("Tab")
                if page.evaluate(f"() => {FOCUSED}").split("\n")[0] == name:
                    # What has the focus shows it.
                    seen = "getComputedStyle(document.activeElement)"
                    assert page.evaluate(f"() => {seen}.outlineStyle !== 'none' && {seen}.outlineWidth !== '0px'"), name
                    return
            pytest.fail(f"the keyboard does not come to {name}")

        page.get_by_role("button", name="Top up", exact=True).wait_for()
        tab_to("Top up")
        page.keyboard.press("Enter")
        page.get_by_text("Pay with", exact=True).wait_for()
        # The group is one stop; arrows go round in it.
        tab_to("Ten")
        page.keyboard.press("ArrowRight")
        assert page.evaluate(f"() => {FOCUSED}").split("\n")[0] == "Twenty"
        page.keyboard.press("ArrowRight")
        chosen = page.get_by_role("radiogroup", name="Packages").get_by_role("radio", checked=True)
        assert chosen.all_inner_texts()[0].split("\n")[0] == "Ten"
        tab_to("Pay ¥10.00")
        page.keyboard.press("Enter")
        page.get_by_text("Waiting for payment").wait_for()
        stack.wechat.pay(number_of_order(shop))
        tab_to("I have paid")
        page.keyboard.press("Enter")
        page.get_by_text("Paid", exact=True).wait_for()
        tab_to("Back to the chat")
        page.keyboard.press("Enter")
        page.locator(".composer-text textarea").wait_for()


def test_a_sheet_keeps_the_focus_and_gives_it_back(visits: Visits, upstream_url: str, stack: Stack) -> None:
    shop = furnished(upstream_url, stack)
    with visits.page(shop.host, token=shop.alice.token) as page:
        way = page.get_by_role("button", name="Choose a model", exact=True)
        way.focus()
        page.keyboard.press("Enter")
        page.get_by_role("dialog", name="Choose a model").wait_for()
        inside = "() => document.activeElement.closest('[role=dialog]') !== null"
        for key in ("Tab", "Tab", "Tab", "Tab", "Tab", "Shift+Tab", "Shift+Tab"):
            page.keyboard.press(key)
            assert page.evaluate(inside), key
        page.keyboard.press("Escape")
        page.get_by_role("dialog", name="Choose a model").wait_for(state="hidden")
        assert page.evaluate(f"() => {FOCUSED}") == "Choose a model"


def test_a_drawer_keeps_the_focus_and_gives_it_back(visits: Visits, upstream_url: str, stack: Stack) -> None:
    shop = furnished(upstream_url, stack)
    with visits.page(shop.host, token=shop.alice.token, viewport=PHONE) as page:
        way = page.get_by_role("button", name="Conversations", exact=True)
        way.focus()
        page.keyboard.press("Enter")
        page.get_by_role("dialog", name="Conversations").wait_for()
        for key in ("Tab", "Tab", "Shift+Tab", "Shift+Tab", "Shift+Tab"):
            page.keyboard.press(key)
            assert page.evaluate("() => document.activeElement.closest('.drawer') !== null"), key
        page.keyboard.press("Escape")
        page.get_by_role("dialog", name="Conversations").wait_for(state="hidden")
        assert page.evaluate(f"() => {FOCUSED}") == "Conversations"


def test_an_answer_is_read_out_when_it_is_whole(visits: Visits, upstream_url: str, stack: Stack) -> None:
    """Not at each word: what grows is no live region, and one that is there from the start tells the end."""
    shop = furnished(upstream_url, stack)
    shop.offer("pace:30:50", slug="slow")
    with visits.page(shop.host, token=shop.alice.token) as page:
        spoken = page.get_by_role("log")
        press(page, "Choose a model")
        page.get_by_role("dialog").get_by_text("pace:30:50").click()
        ask(page, "count")
        page.locator(".answer-body .md", has_text="1 2 3").wait_for()
        assert page.locator(".answer-body [aria-live]").count() == 0
        assert " ".join(spoken.inner_text().split()) == "Thinking…"
        is_over(page)
        page.get_by_role("log").get_by_text("1 2 3").wait_for(state="attached")
        assert " ".join(spoken.inner_text().split()) == " ".join(str(number) for number in range(1, 31))


def test_the_keyboard_may_skip_to_the_field(visits: Visits, upstream_url: str, stack: Stack) -> None:
    shop = furnished(upstream_url, stack)
    with visits.page(shop.host, token=shop.alice.token) as page:
        page.locator(".composer-text textarea").wait_for()
        page.keyboard.press("Tab")
        assert page.evaluate(f"() => {FOCUSED}") == "Skip to the question field"
        page.keyboard.press("Enter")
        assert page.evaluate("() => document.activeElement.tagName") == "TEXTAREA"
