"""A browser inside WeChat on its way to WeChat's consent page and back, bound to the tenant and to that browser.

    begin()     where the browser is sent, and the secret that its cookie keeps
    come_back() where the page goes on, once for each state
    parcel(), unparcel()    WeChat's code on its way from the one to the other, in a signed cookie

The state holds nothing but a random number and our signature over it, the tenant and the browser. Where the page goes
on is in our row, is a path, and was checked before it was written: nothing that comes back from WeChat chooses it.
"""

import hashlib
import re
import secrets
from datetime import timedelta
from typing import Final, NamedTuple
from urllib.parse import urlencode

from django.core import signing
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.translation import gettext_lazy as _

from tenants.errors import ErrorCode, ProductError
from tenants.models import SignInSettings, Tenant, WeChatTrip

# As long as WeChat's code is good.
TRIP_SECONDS: Final = 300
KEEP: Final = timedelta(days=2)
_STATE: Final = re.compile(r"[0-9a-f]{64}\Z")
# A path of ours: not of another host ("//host", "/\host"), without what browsers drop or take for another sign.
_LOCAL: Final = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]{0,499}\Z")
_SALT: Final = "tenants.webauth"


class Departure(NamedTuple):
    """Where the browser is sent, and what it has to bring back in its cookie."""

    url: str
    browser: str


def is_inside_wechat(user_agent: str) -> bool:
    """Whether a browser is WeChat's own: only there its consent page works. A mini-program's page has other ways."""
    return "MicroMessenger" in user_agent and "miniProgram" not in user_agent


def local_path(wanted: str) -> str:
    """Return a path to go on at if it is one of ours, else the first page."""
    return wanted if _LOCAL.match(wanted) else "/"


def begin(*, tenant: Tenant, chosen: SignInSettings, back_to: str, redirect_uri: str, open_url: str) -> Departure:
    """Note a way to WeChat and return its beginning; in the tenant's scope."""
    browser, number = secrets.token_urlsafe(32), secrets.token_hex(16)
    state = number + _signature(tenant, browser, number)
    WeChatTrip.objects.create(
        tenant_id=tenant.pk,
        state_digest=_digest(state),
        browser_digest=_digest(browser),
        back_to=local_path(back_to),
        expires_at=timezone.now() + timedelta(seconds=TRIP_SECONDS),
    )
    # WeChat wants the parameters in this order, and the fragment.
    query = urlencode(
        {
            "appid": chosen.wechat_app_id,
            "redirect_uri": redirect_uri,
            "response_type": "code",
            "scope": "snsapi_userinfo" if chosen.wechat_asks_profile else "snsapi_base",
            "state": state,
        }
    )
    return Departure(f"{open_url}/connect/oauth2/authorize?{query}#wechat_redirect", browser)


def come_back(*, tenant: Tenant, state: str, browser: str) -> str:
    """End a way and return where the page goes on; raise ProductError INVALID "wechat_state_invalid".

    That is for a state that is forged, another tenant's, another browser's, too old, or was used.
    """
    if not _STATE.match(state) or not constant_time_compare(state[32:], _signature(tenant, browser, state[:32])):
        raise _invalid()
    mine = WeChatTrip.objects.filter(
        tenant_id=tenant.pk, state_digest=_digest(state), browser_digest=_digest(browser), used_at=None
    )
    if not mine.filter(expires_at__gt=timezone.now()).update(used_at=timezone.now()):
        raise _invalid()
    return WeChatTrip.objects.get(tenant_id=tenant.pk, state_digest=_digest(state)).back_to


def parcel(*, tenant: Tenant, code: str, browser: str) -> str:
    """Return WeChat's code as the browser may carry it for a moment, of use to this browser and tenant alone."""
    return signing.dumps({"code": code, "browser": _digest(browser)}, salt=f"{_SALT}:{tenant.pk}")


def unparcel(*, tenant: Tenant, carried: str, browser: str) -> str:
    """Return the code that the browser carried; raise ProductError INVALID "wechat_state_invalid"."""
    try:
        found = signing.loads(carried, salt=f"{_SALT}:{tenant.pk}", max_age=TRIP_SECONDS)
    except signing.BadSignature:
        raise _invalid() from None
    if not constant_time_compare(found["browser"], _digest(browser)):
        raise _invalid()
    return str(found["code"])


def forget() -> int:
    """Delete the current scope's ways that ended long ago; return how many."""
    return WeChatTrip.objects.filter(created_at__lt=timezone.now() - KEEP).delete()[0]


def _signature(tenant: Tenant, browser: str, number: str) -> str:
    return salted_hmac(_SALT, f"{tenant.pk}:{browser}:{number}", algorithm="sha256").hexdigest()[:32]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _invalid() -> ProductError:
    return ProductError(
        ErrorCode.INVALID,
        _("This log-in with WeChat was begun elsewhere, or too long ago. Please try again."),
        type="wechat_state_invalid",
        scope="user",
    )
