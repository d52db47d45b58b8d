"""A mini-program's own code: drawn once, kept, and refused as WeChat refuses it."""

import io

import pytest
from PIL import Image
from pytest_django import Settings

from tenants.errors import ProductError
from tenants.mini_codes import picture_of
from tenants.models import MiniProgram
from tenants.tests.conftest import SECRET
from tenants.wechat import WeChatClient
from tests.doubles.xpay import XPayDouble
from tests.factories import make_mini_program, make_tenant, unique

pytestmark = pytest.mark.usefixtures("_encryption")


def leads(picture: bytes) -> str:
    """Return where the double's picture leads."""
    with Image.open(io.BytesIO(picture)) as opened:
        assert (opened.format, opened.size) == ("JPEG", (430, 430))
        return bytes(opened.info["comment"]).decode()


def refusal(program: MiniProgram, xpay_client: WeChatClient, scene: str) -> tuple[int, str]:
    with pytest.raises(ProductError) as refused:
        picture_of(program, xpay_client, scene=scene)
    return refused.value.code, refused.value.type


def test_it_hands_its_scene_to_the_chat(program: MiniProgram, xpay: XPayDouble, xpay_client: WeChatClient) -> None:
    scene = unique("c")[:12]
    picture = picture_of(program, xpay_client, scene=scene)
    assert leads(picture) == f"{program.app_id} pages/chat/index {scene}"
    assert xpay.drawn == [
        (
            program.app_id,
            {
                "scene": scene,
                "page": "pages/chat/index",
                "check_path": False,
                "env_version": "release",
                "width": 430,
            },
        )
    ]


def test_it_is_drawn_once_for_each_scene_and_program(
    program: MiniProgram, xpay: XPayDouble, xpay_client: WeChatClient
) -> None:
    other = make_mini_program(make_tenant(), secret=SECRET)
    xpay.secrets[other.app_id] = SECRET
    one, two = unique("c")[:12], unique("d")[:12]
    for _again in range(2):
        told = [leads(picture_of(each, xpay_client, scene=scene)) for each in (program, other) for scene in (one, two)]
        assert told == [f"{each.app_id} pages/chat/index {scene}" for each in (program, other) for scene in (one, two)]
    assert len(xpay.drawn) == 4


def test_a_token_that_is_over_is_fetched_anew(
    program: MiniProgram, xpay: XPayDouble, xpay_client: WeChatClient
) -> None:
    picture_of(program, xpay_client, scene=unique("c")[:12])
    xpay.tokens[program.app_id] = "77_another"  # made by somebody else
    assert leads(picture_of(program, xpay_client, scene="later")) == f"{program.app_id} pages/chat/index later"
    assert xpay.made == [(program.app_id, False)] * 2


def test_what_is_no_picture_is_refused_and_not_kept(
    program: MiniProgram, xpay: XPayDouble, xpay_client: WeChatClient
) -> None:
    picture_of(program, xpay_client, scene="warm")
    said = [
        (200, b'{"errcode": 45009, "errmsg": "reach max api daily quota limit"}'),
        (200, b"\xff\xd8 no picture"),
        (502, b"<html>"),
        (502, b"\xff\xd8\xff"),
    ]
    for each in said:
        xpay.raw.append(each)
        assert refusal(program, xpay_client, "s") == (500, "wechat_unavailable")
    assert refusal(program, xpay_client, "s" * 33) == (500, "wechat_unavailable")
    assert leads(picture_of(program, xpay_client, scene="s")) == f"{program.app_id} pages/chat/index s"


def test_a_wrong_secret_or_no_wechat_is_an_unavailable_picture(
    program: MiniProgram, xpay: XPayDouble, xpay_client: WeChatClient
) -> None:
    xpay.secrets[program.app_id] = "another"
    assert refusal(program, xpay_client, "s") == (500, "wechat_unavailable")
    gone = WeChatClient("http://127.0.0.1:1")
    assert refusal(program, gone, "s") == (500, "wechat_unavailable")
    gone.close()


def test_without_a_cache_it_is_drawn_again(
    program: MiniProgram, xpay: XPayDouble, xpay_client: WeChatClient, settings: Settings
) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "redis://127.0.0.1:9/0",
        }
    }
    scene = unique("c")[:12]
    for _again in range(2):
        assert leads(picture_of(program, xpay_client, scene=scene)) == f"{program.app_id} pages/chat/index {scene}"
    assert len(xpay.drawn) == 2
