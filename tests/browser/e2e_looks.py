"""Two tenants, two brands; each language, theme and size of screen."""

import re
from typing import Any

from tests.browser.e2e_real import demo_tenant
from tests.browser.visit import PHONE, TABLET, WIDE, Visits, press, wait_until

COLOURS = {"aurora": "rgb(79, 70, 229)", "lotus": "rgb(190, 24, 93)"}
TITLES = {"aurora": "极光 Aurora", "lotus": "清荷 Lotus"}


def test_each_tenant_has_its_brand_in_either_language_and_theme(visits: Visits) -> None:
    for slug, title in TITLES.items():
        with visits.page(f"{slug}.localhost", color_scheme="light") as page:
            page.get_by_text(title, exact=True).first.wait_for()
            brand = page.evaluate("getComputedStyle(document.querySelector('.app')).getPropertyValue('--brand')")
            assert (page.title(), brand.strip()) == (title, COLOURS[slug])
            other = next(value for name, value in TITLES.items() if name != slug)
            assert other not in page.content()
            press(page, "Settings")
            press(page, "Dark")
            assert page.evaluate("document.documentElement.className").split() == ["dark"]
            press(page, "简体中文")
            wait_until(page, "document.documentElement.lang === 'zh-CN'")
            assert re.sub(r"\s", "", page.get_by_role("heading", level=1).last.inner_text()) == "设置"
            page.reload()
            assert page.evaluate("document.documentElement.className").split() == ["dark"]


def test_nothing_is_wider_than_its_screen(visits: Visits) -> None:
    shop = demo_tenant("lotus")
    for viewport in (PHONE, TABLET, WIDE):
        for theme in ("light", "dark"):
            looks: dict[str, Any] = {"viewport": viewport, "color_scheme": theme, "locale": "zh-CN"}
            with visits.page(shop.host, token=shop.alice.token, **looks) as page:
                page.locator(".prompts").wait_for()
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                if (viewport, theme) == (PHONE, "dark"):
                    visits.shoot(page, "client-phone")


BOX = "one => { const { x, y, width, height } = one.getBoundingClientRect(); return [x, y, width, height] }"


def test_what_is_painted_before_the_client_runs_stays_where_it_is(visits: Visits) -> None:
    """The greeting does not jump or change when the client takes over; on the way to another page it is not painted."""
    for viewport in (PHONE, WIDE):
        with visits.page("lotus.localhost", viewport=viewport) as page:
            page.locator(".hello-title").wait_for()
            greeting = page.locator(".hello-title").inner_text()
            after = [page.locator(name).evaluate(BOX) for name in (".hello .mark", ".hello-title", ".hello-more")]
            page.route("**/*.js", lambda route: route.fulfill(body="", content_type="text/javascript"))
            page.reload()
            parts = [page.locator(f".shell-{name}") for name in ("mark", "title", "more")]
            before = [part.evaluate(BOX) for part in parts]
            assert (parts[1].inner_text(), before) == (greeting, after)
            page.goto(f"{page.url.split('#')[0]}#/pages/login/index")
            page.reload()
            assert [part.is_visible() for part in parts] == [True, False, False]
