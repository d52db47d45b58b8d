"""Chats by the page against a scripted provider, where what comes is known to the letter."""

from tests.browser.visit import (
    PHONE,
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
from tests.doubles.line import line_to
from tests.programs import expect_right_books
from tests.shop import YUAN


def test_a_guest_chats_and_stops(visits: Visits, upstream_url: str) -> None:
    shop = open_door(upstream_url)
    shop.offer("pace:400:50", free_per_day=9, is_default=True)
    with visits.page(shop.host) as page:
        enter_as_guest(page)
        ask(page, "count")
        page.locator(".answer-body .md", has_text="1 2 3 4").wait_for()
        press(page, "Stop")
        is_over(page)
        page.get_by_text("Stopped", exact=True).wait_for()
        (said,) = told(shop)
        assert (shown(page), said.startswith("1 2 3 4"), "400" in said) == (said, True, False)
    expect_right_books(shop)


def test_an_answer_goes_on_after_an_offline_spell(visits: Visits, upstream_url: str) -> None:
    shop = open_door(upstream_url)
    shop.offer("pace:80:100", free_per_day=9, is_default=True)
    with line_to(visits.port) as line, visits.page(shop.host, port=line.port, viewport=PHONE) as page:
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
        assert (shown(page), told(shop)) == (whole, [whole])
    expect_right_books(shop)


def test_a_connection_that_is_killed_again_and_again_costs_nothing_twice(visits: Visits, upstream_url: str) -> None:
    shop = open_door(upstream_url, cash=YUAN)
    shop.offer("pace:80:100", is_default=True)
    with line_to(visits.port) as line, visits.page(shop.host, port=line.port, token=shop.alice.token) as page:
        ask(page, "count")
        for number in (5, 25, 45):
            page.locator(".answer-body .md", has_text=f" {number} ").wait_for()
            line.cut()
        is_over(page)
        whole = " ".join(str(number) for number in range(1, 81))
        assert (shown(page), told(shop)) == (whole, [whole])
    expect_right_books(shop)
    [hold] = shop.holds()
    assert (hold.state, hold.posted_completion) == ("posted", 80)
    assert shop.balance(shop.alice).cash == YUAN - hold.charge


def test_an_answer_is_found_by_who_opens_the_page_anew(visits: Visits, upstream_url: str) -> None:
    """The tab is closed in mid-answer, and another device has the rest."""
    shop = open_door(upstream_url, cash=YUAN)
    shop.offer("pace:80:100", is_default=True)
    with visits.page(shop.host, token=shop.alice.token) as page:
        ask(page, "count")
        page.locator(".answer-body .md", has_text="1 2 3 4").wait_for()
    with visits.page(shop.host, token=shop.alice.token, viewport=PHONE) as page:
        press(page, "Conversations")
        page.locator(".pane-row .pane-item").first.click()
        wait_until(page, "document.querySelector('.answer-body .md')?.innerText.includes(' 80')")
        is_over(page)
        assert [shown(page)] == told(shop)
    expect_right_books(shop)
    assert len(shop.holds()) == 1
