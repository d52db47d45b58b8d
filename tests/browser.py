"""The built page in a real browser, against the real server: `make e2e`.

No `test_` stands before this file's name, so `make test` passes it by. The browser is the machine's own Chromium
(`apt install chromium`, or `CHROMIUM=/path/to/it`); where there is none, or no page was built, all of it is skipped,
and the reason says what to do.
"""

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from billing.models import Order
from billing.tests.payments.conftest import open_account, open_package
from chat.tests.files import picture
from saas.local.client import BUILT
from tenants import scope
from tenants.models import Branding, Domain, Tenant
from tests.doubles.line import line_to
from tests.doubles.wechatpay import Merchant, running_wechatpay
from tests.programs import expect_right_books, wait_for
from tests.servers import web_server
from tests.shop import Shop, open_shop

# Playwright's own loop runs in this thread while a test asks the database, one after the other.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
PATIENCE = 30_000  # ms

pytestmark = [
    pytest.mark.usefixtures("committed_db"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt install chromium, or CHROMIUM=/path/to/it"),
    pytest.mark.skipif(not (BUILT / "index.html").exists(), reason="the page is not built: make client"),
]


@pytest.fixture
def chromium() -> Iterator[Any]:
    """Run a browser."""
    driver = pytest.importorskip("playwright.sync_api", reason="no playwright here: make e2e installs it")
    with driver.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP *.localhost 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        connections.close_all()  # what was asked while a loop runs has connections of its own
        browser.close()


def open_door(upstream_url: str) -> Shop:
    """Open a shop that guests may try, at a host that browsers find on this machine, and trust without TLS."""
    shop = open_shop(upstream_url, cash=0)
    host = shop.host.replace(".example.com", ".localhost")
    with scope.platform("a test lets guests in"):
        Tenant.objects.filter(pk=shop.tenant.pk).update(allow_guest=True)
    with scope.tenant(shop.tenant.pk):
        Domain.objects.update(host=host)
    return replace(shop, host=host)


@contextmanager
def visitor(chromium: Any, shop: Shop, port: int, *, token: str = "", **looks: Any) -> Iterator[Any]:
    """Open a shop's page as somebody new, or by a token.

    At the end it has asked no other host, and its console holds no error.
    """
    home = f"http://{shop.host}:{port}/"
    context = chromium.new_context(**{"locale": "en-US", "viewport": WIDE, **looks})
    if token:
        context.add_init_script(f"localStorage.setItem('banyan.token', '{token}')")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    asked, faults = set[str](), list[str]()
    page.on("request", lambda request: asked.add(request.url.split("/", 3)[2]))
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    page.goto(home)
    try:
        yield page
        # Of an offline spell that a test makes.
        away = ("net::ERR_INTERNET_DISCONNECTED", "net::ERR_INCOMPLETE_CHUNKED_ENCODING", "net::ERR_CONNECTION_CLOSED")
        faults = [fault for fault in faults if not any(word in fault for word in away)]
        assert (faults, asked) == ([], {f"{shop.host}:{port}"})
    finally:
        context.close()


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).first.click()


def wait_until(page: Any, condition: str) -> None:
    """Wait for a condition of the page. Not `wait_for_function`: it evaluates a text, and the policy refuses that."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(f"() => {condition}"):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


def enter_as_guest(page: Any) -> None:
    press(page, "Log in")
    press(page, "Try it without an account")
    wait_until(page, "localStorage.getItem('banyan.token')")


def ask(page: Any, text: str) -> None:
    field = page.locator(".composer-text textarea")
    field.fill(text)
    press(page, "Send")


def shown(page: Any) -> str:
    """Return the last answer as the page shows it."""
    return " ".join(page.locator(".answer-body .md").last.inner_text().split())


def is_over(page: Any) -> None:
    """Wait until nothing is under way."""
    page.get_by_role("button", name="Send", exact=True).wait_for()


def told(shop: Shop) -> list[tuple[str, str]]:
    """Return how each answer ended, and its text as the server has it."""
    return [(message.finish_reason, " ".join(message.answer.split())) for message in shop.messages()]


def test_a_guest_chats_and_stops(chromium: Any, upstream_url: str) -> None:
    shop = open_door(upstream_url)
    shop.offer("pace:400:50", free_per_day=9, is_default=True)
    with web_server("uvicorn") as port, visitor(chromium, shop, port) as page:
        enter_as_guest(page)
        ask(page, "count")
        page.locator(".answer-body .md", has_text="1 2 3 4").wait_for()
        press(page, "Stop")
        is_over(page)
        page.get_by_text("Stopped", exact=True).wait_for()
        (said,) = told(shop)
        assert (shown(page), said[1].startswith("1 2 3 4"), "400" in said[1]) == (said[1], True, False)
    expect_right_books(shop)


def test_an_answer_goes_on_after_an_offline_spell(chromium: Any, upstream_url: str) -> None:
    shop = open_door(upstream_url)
    shop.offer("pace:80:100", free_per_day=9, is_default=True)
    with (
        web_server("uvicorn") as port,
        line_to(port) as line,
        visitor(chromium, shop, line.port, viewport=PHONE) as page,
    ):
        press(page, "Conversations")
        enter_as_guest(page)
        ask(page, "count")
        page.locator(".answer-body .md", has_text="1 2 3 4").wait_for()
        page.context.set_offline(True)
        line.cut()
        page.get_by_text("Connection lost, reconnecting…").wait_for()
        page.context.set_offline(False)
        is_over(page)
        whole = " ".join(str(number) for number in range(1, 81))
        assert (shown(page), [text for _reason, text in told(shop)]) == (whole, [whole])
    expect_right_books(shop)


def test_who_cannot_pay_is_led_to_the_till_and_back_to_the_answer(chromium: Any, upstream_url: str) -> None:
    shop = open_door(upstream_url)
    shop.offer("echo", is_default=True)
    merchant = Merchant(merchant_id=str(1_900_000_000 + shop.tenant.pk), app_id="wx0123456789abcdef")
    open_account(shop.tenant, merchant)
    open_package(shop.tenant, slug="ten", name="Ten")
    with running_wechatpay() as wechat, web_server("uvicorn", WECHAT_PAY_API_URL=wechat.url) as port:
        wechat.merchants[merchant.merchant_id] = merchant
        with visitor(chromium, shop, port, token=shop.alice.token) as page:
            ask(page, "what is a banyan")
            press(page, "Pay ¥10.00")
            page.get_by_text("Waiting for payment").wait_for()
            with scope.tenant(shop.tenant.pk):
                order = wait_for(Order.objects.first)
            wechat.pay(str(order.pk).replace("-", ""))
            press(page, "I have paid")
            page.get_by_text("Paid", exact=True).wait_for()
            press(page, "Back to the chat")
            wait_until(page, "document.querySelector('.composer-text textarea').value === 'what is a banyan'")
            press(page, "Send")
            page.locator(".answer-body .md").wait_for()
            is_over(page)
            assert (shown(page), [text for _reason, text in told(shop)]) == ("what is a banyan", ["what is a banyan"])
    expect_right_books(shop)


def test_each_tenant_has_its_brand_in_either_language_and_theme(chromium: Any, upstream_url: str) -> None:
    shops = {"Aurora": open_door(upstream_url), "Kapok": open_door(upstream_url)}
    colours = {"Aurora": "#4338ca", "Kapok": "#be123c"}
    for title, shop in shops.items():
        with scope.tenant(shop.tenant.pk):
            Branding.objects.filter(tenant=shop.tenant).update(title=title, primary_color=colours[title])
    with web_server("uvicorn") as port:
        for title, shop in shops.items():
            with visitor(chromium, shop, port) as page:
                page.get_by_text(title, exact=True).first.wait_for()
                colour = page.evaluate("getComputedStyle(document.querySelector('.app')).getPropertyValue('--brand')")
                red, green, blue = (int(colours[title][at : at + 2], 16) for at in (1, 3, 5))
                assert (page.title(), colour.strip()) == (title, f"rgb({red}, {green}, {blue})")
                press(page, "Settings")
                press(page, "Dark")
                assert page.evaluate("document.documentElement.className").split() == ["dark"]
                press(page, "简体中文")
                wait_until(page, "document.documentElement.lang === 'zh-CN'")
                assert re.sub(r"\s", "", page.get_by_role("heading", level=1).last.inner_text()) == "设置"
                page.reload()
                assert page.evaluate("document.documentElement.className").split() == ["dark"]


def test_what_is_attached_is_seen_by_the_model_and_in_the_history(
    chromium: Any, upstream_url: str, tmp_path: Path
) -> None:
    shop = open_door(upstream_url)
    shop.offer("sees:900", image_tokens=1000, free_per_day=9, is_default=True)
    shop.offer("echo", image_tokens=0, free_per_day=9)
    photo, notes = tmp_path / "photo.png", tmp_path / "notes.md"
    photo.write_bytes(picture(400, 300))
    notes.write_text("a list of things")
    with web_server("uvicorn") as port, visitor(chromium, shop, port, token=shop.alice.token) as page:
        choose(page, photo, notes)
        page.locator(".tray-kept").nth(1).wait_for()
        page.reload()  # it waits, as the draft does
        ask(page, "what is it?")
        page.locator(".answer-body .md").wait_for()
        is_over(page)
        assert shown(page).startswith("JPEG 400x300 red;")
        page.locator(".shot-image img").first.wait_for(state="attached")
        page.get_by_role("button", name="Show photo.png large", exact=True).click()
        page.locator(".viewer-image").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Read notes.md", exact=True).click()
        page.get_by_text("a list of things", exact=True).wait_for()
        press(page, "Close")
        page.reload()
        page.get_by_text("what is it?", exact=True).first.click()
        page.locator(".shot-image img").first.wait_for(state="attached")
        press(page, "Regenerate")
        is_over(page)
        assert [message.attachments for message in shop.messages()] == [shop.messages()[0].attachments] * 2
        choose(page, photo)
        page.locator(".tray-kept").first.wait_for()
        press(page, "Choose a model")
        press(page, "echo")
        page.get_by_text("This model takes no pictures. Choose another one, or remove them.").wait_for()
        press(page, "Remove photo.png")
    expect_right_books(shop)


def choose(page: Any, *files: Path) -> None:
    """Attach files by the browser's dialog."""
    with page.expect_file_chooser() as chooser:
        press(page, "Attach pictures or text files")
    chooser.value.set_files([str(file) for file in files])
