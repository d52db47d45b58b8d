"""Access tokens: fetched by one of many, kept encrypted, made anew once when WeChat refuses them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.core.cache import cache
from django.db import connection
from pytest_django import Settings

from tenants import scope
from tenants.models import MiniProgram, WeChatIdentity
from tenants.tests.conftest import SECRET
from tenants.wechat import WeChatAwayError, WeChatClient
from tenants.wechat_token import WeChatRefusedError, access_token, call
from tests.doubles.xpay import Offer, XPayDouble
from tests.factories import make_user, unique

pytestmark = pytest.mark.usefixtures("_encryption")


@pytest.fixture
def program(program: MiniProgram, xpay: XPayDouble) -> MiniProgram:
    xpay.offers[program.app_id] = Offer(app_id=program.app_id, offer_id="1450000001")
    return program


def check(program: MiniProgram, xpay_client: WeChatClient) -> object:
    """Make any call that wants a token."""
    query = {"openid": "o1", "signature": "0", "sig_method": "hmac_sha256"}
    return call(program, xpay_client, "/wxa/checksession", query=query)["errcode"]


def at_once(times: int, job: Callable[[], str]) -> list[str]:
    """Do it in so many threads, let go at the same moment."""
    start = Barrier(times)

    def run() -> str:
        start.wait()
        return job()

    with ThreadPoolExecutor(times) as threads:
        return [each.result() for each in [threads.submit(run) for _ in range(times)]]


def test_a_token_is_fetched_once_and_kept(program: MiniProgram, xpay: XPayDouble, xpay_client: WeChatClient) -> None:
    first = access_token(program, xpay_client)
    assert (access_token(program, xpay_client), first) == (first, xpay.tokens[program.app_id])
    assert xpay.made == [(program.app_id, False)]
    kept = cache.get(f"wechat_token:{program.app_id}")
    assert (bool(kept), first in kept, SECRET in kept) == (True, False, False)


def test_of_many_at_once_one_fetches(program: MiniProgram, xpay: XPayDouble, xpay_client: WeChatClient) -> None:
    xpay.stable_token_delay = 0.2
    tokens = at_once(8, lambda: access_token(program, xpay_client))
    assert (set(tokens), xpay.made) == ({xpay.tokens[program.app_id]}, [(program.app_id, False)])


def test_a_token_that_is_over_is_fetched_anew_once(
    program: MiniProgram, xpay: XPayDouble, xpay_client: WeChatClient
) -> None:
    check(program, xpay_client)
    xpay.tokens[program.app_id] = "77_another"  # made by somebody else
    assert check(program, xpay_client) == 87009
    assert xpay.made == [(program.app_id, False)] * 2
    assert access_token(program, xpay_client) == "77_another"


def test_a_token_that_wechat_keeps_and_refuses_is_made_anew_by_force(
    program: MiniProgram, xpay: XPayDouble, xpay_client: WeChatClient
) -> None:
    token = access_token(program, xpay_client)
    made = access_token(program, xpay_client, refused=token)
    assert (made != token, xpay.made) == (True, [(program.app_id, False)] * 2 + [(program.app_id, True)])


def test_it_is_tried_again_once_only(program: MiniProgram, xpay: XPayDouble, xpay_client: WeChatClient) -> None:
    access_token(program, xpay_client)
    stale = b'{"errcode": 42001, "errmsg": "access_token expired"}'
    fresh = b'{"access_token": "77_fresh", "expires_in": 7200}'
    xpay.raw.extend([(200, stale), (200, fresh), (200, stale)])
    assert check(program, xpay_client) == 42001
    assert xpay.calls[-3:] == ["checksession", "stable_token", "checksession"]


def test_of_many_refused_at_once_one_fetches(program: MiniProgram, xpay: XPayDouble, xpay_client: WeChatClient) -> None:
    token = access_token(program, xpay_client)
    xpay.tokens[program.app_id], xpay.stable_token_delay = "77_another", 0.2
    tokens = at_once(6, lambda: access_token(program, xpay_client, refused=token))
    assert (set(tokens), len(xpay.made)) == ({"77_another"}, 2)


def test_redis_away(program: MiniProgram, xpay: XPayDouble, xpay_client: WeChatClient, settings: Settings) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "redis://127.0.0.1:9/0",
        }
    }
    assert access_token(program, xpay_client) == access_token(program, xpay_client) == xpay.tokens[program.app_id]
    assert xpay.made == [(program.app_id, False)] * 2


def test_a_secret_that_is_wrong(
    program: MiniProgram, xpay: XPayDouble, xpay_client: WeChatClient, caplog: pytest.LogCaptureFixture
) -> None:
    xpay.secrets[program.app_id] = "another"
    with pytest.raises(WeChatRefusedError, match="40125"):
        access_token(program, xpay_client)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"access_token": 7, "expires_in": 7200}'])
def test_answers_that_are_no_token(
    body: bytes, program: MiniProgram, xpay: XPayDouble, xpay_client: WeChatClient
) -> None:
    xpay.raw.append((200, body))
    with pytest.raises(WeChatAwayError):
        access_token(program, xpay_client)
    assert access_token(program, xpay_client) == xpay.tokens[program.app_id]


def test_a_token_under_a_dropped_key_is_fetched_anew(
    program: MiniProgram, xpay: XPayDouble, xpay_client: WeChatClient
) -> None:
    cache.set(f"wechat_token:{program.app_id}", "gAAAAAnonsense", timeout=60)
    assert access_token(program, xpay_client) == xpay.tokens[program.app_id]


def test_a_session_key_is_stored_encrypted(program: MiniProgram) -> None:
    user = make_user(program.tenant)
    with scope.tenant(user.tenant_id):
        row = WeChatIdentity.objects.create(
            tenant_id=user.tenant_id,
            user=user,
            app_id=program.app_id,
            openid=unique("o"),
            session_key="9hAb/NEYUlkaMBEsmFgzig==",
        )
        assert WeChatIdentity.objects.get(pk=row.pk).session_key == "9hAb/NEYUlkaMBEsmFgzig=="
    with connection.cursor() as cursor:
        cursor.execute("SELECT session_key FROM tenants_wechatidentity WHERE id = %s", [row.pk])
        assert "9hAb" not in cursor.fetchone()[0]
