"""A picture of oneself: chosen on the profile page, there after a reload, beside the conversations, removed again."""

from pathlib import Path
from typing import Any

import pytest

from chat.tests.files import picture
from tenants import avatars, scope
from tests.browser.visit import PHONE, WIDE, Visits, open_door, press, wait_until

# How wide the picture that the mark shows is, dots; 0: none, or not loaded.
WIDTH = "document.querySelector('{where} uni-image img')?.naturalWidth ?? 0"
PROFILE, PANE = WIDTH.format(where=".profile-avatar"), WIDTH.format(where=".pane-me")


@pytest.mark.parametrize("viewport", [PHONE, WIDE], ids=["phone", "wide"])
def test_an_avatar_is_set_and_there_after_a_reload(
    visits: Visits, upstream_url: str, tmp_path: Path, viewport: dict[str, int]
) -> None:
    shop = open_door(upstream_url)
    photo = tmp_path / "me.png"
    photo.write_bytes(picture(900, 600))
    with visits.page(shop.host, token=shop.alice.token, path="#/pages/profile/index", viewport=viewport) as page:
        choose(page, photo)
        wait_until(page, f"{PROFILE} === 256")
        page.reload()
        wait_until(page, f"{PROFILE} === 256")
        with scope.tenant(shop.tenant.pk):
            kept = avatars.of(shop.alice.user)
        assert kept is not None
        assert kept.token in page.locator(".profile-avatar img").get_attribute("src")
        press(page, "Nickname")
        page.get_by_role("textbox", name="Nickname").fill("Ann Fig")
        press(page, "Save")
        page.get_by_role("dialog").last.wait_for(state="hidden")
        page.goto(f"http://{shop.host}:{visits.port}/?chat")
        if viewport == PHONE:
            press(page, "Conversations")
        page.locator(".pane-me").get_by_text("Ann Fig", exact=True).wait_for()
        wait_until(page, f"{PANE} === 256")
        page.locator(".pane-me").click()
        press(page, "Profile picture")
        press(page, "Remove picture")
        page.locator(".profile-avatar .letter").wait_for()
        page.reload()
        page.locator(".profile-avatar .letter").wait_for()
        with scope.tenant(shop.tenant.pk):
            assert avatars.of(shop.alice.user) is None


def choose(page: Any, file: Path) -> None:
    """Choose a picture by the browser's dialog."""
    press(page, "Profile picture")
    page.get_by_role("dialog").wait_for()
    with page.expect_file_chooser() as chooser:
        press(page, "Choose a picture")
    chooser.value.set_files(str(file))
