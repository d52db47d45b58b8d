"""Pictures and text files in a question: chosen, kept through a reload, seen by the model, shown in the history."""

from pathlib import Path
from typing import Any

from chat.tests.files import picture
from tests.browser.visit import Visits, ask, is_over, open_door, press, shown
from tests.programs import expect_right_books


def test_what_is_attached_is_seen_by_the_model_and_in_the_history(
    visits: Visits, upstream_url: str, tmp_path: Path
) -> None:
    shop = open_door(upstream_url)
    shop.offer("sees:900", image_tokens=1000, free_per_day=9, is_default=True)
    shop.offer("echo", image_tokens=0, free_per_day=9)
    photo, notes = tmp_path / "photo.png", tmp_path / "notes.md"
    photo.write_bytes(picture(400, 300))
    notes.write_text("a list of things")
    with visits.page(shop.host, token=shop.alice.token) as page:
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
        # A picture alone is a question, and its conversation is called after it.
        press(page, "Choose a model")
        press(page, "sees:900")
        press(page, "New chat")
        choose(page, photo)
        page.locator(".tray-kept").first.wait_for()
        press(page, "Send")
        page.locator(".answer-body .md").wait_for()
        is_over(page)
        assert (shown(page), page.locator(".ask-bubble").count()) == ("JPEG 400x300 red;", 0)
        assert shop.messages()[-1].question == ""
        page.locator(".chat-title").get_by_text("Picture", exact=True).wait_for()
        page.reload()
        page.get_by_text("Picture", exact=True).first.click()
        page.locator(".shot-image img").first.wait_for(state="attached")
    expect_right_books(shop)


def choose(page: Any, *files: Path) -> None:
    """Attach files by the browser's dialog."""
    with page.expect_file_chooser() as chooser:
        press(page, "Attach pictures or text files")
    chooser.value.set_files([str(file) for file in files])
