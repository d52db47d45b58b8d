"""The JSON API of coming in: what a tenant offers, one-time codes, e-mail with a password, WeChat on web pages."""

from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import translation
from django.utils.translation import gettext_lazy as _
from ninja import Router, Schema
from pydantic import Field

from tenants import captcha, codes, identities, webauth
from tenants.api import (
    CaptchaAnswer,
    Envelope,
    LoggedIn,
    Password,
    Text,
    address_of,
    count_newcomer,
    current_tenant,
    guarded,
    guest_of,
    log_in,
    ok,
)
from tenants.codes import Channel, Purpose
from tenants.errors import ErrorCode, ProductError
from tenants.login import user_of_wechat
from tenants.models import MiniProgram, Tenant
from tenants.resolve import host_name, resolve_tenant
from tenants.wechat import WeChatSession, client_for

logger = structlog.get_logger(__name__)

router = Router(tags=["auth"])

# Both live as long as WeChat's code. The path keeps them away from everything else.
BROWSER_COOKIE = "wechat_browser"
CODE_COOKIE = "wechat_code"
COOKIE_PATH = "/api/auth/"

To = Annotated[Text, Field(min_length=3, max_length=254)]
Code = Annotated[Text, Field(min_length=1, max_length=12)]
Nickname = Annotated[Text, Field(max_length=64)]


class CaptchaOut(Schema):
    """A captcha's widget: whose, and the key that it wants. "altcha" is work for the device, and has neither."""

    provider: str
    site_key: str


class MethodsOut(Schema):
    """The ways in that are offered to this client here, the best first.

    `wechat` is a mini-program's `wx.login`, `wechat_h5` begins at `/api/auth/wechat/h5/start`. `email_password` is
    signing up with an address, a code and a password. `captcha` says what a refusal "captcha_needed" will ask for.
    """

    methods: list[Literal["wechat", "wechat_h5", "phone_code", "email_code", "email_password", "password", "guest"]]
    register_: bool = Field(serialization_alias="register")
    code_digits: int
    code_seconds: int
    resend_seconds: int
    captcha: CaptchaOut | None


class CodeIn(Schema):
    """Where a code shall go, and what for."""

    channel: Channel
    to: To
    purpose: Literal["sign_in", "reset"] = "sign_in"
    captcha: CaptchaAnswer = ""


class SentOut(Schema):
    """A code is on its way: how long it is good, and when another may be asked for."""

    expires_at: datetime
    resend_at: datetime


class CodeLoginIn(Schema):
    """A phone or an address, and the code that went there."""

    channel: Channel
    to: To
    code: Code
    nickname: Nickname = ""
    captcha: CaptchaAnswer = ""


class EmailRegisterIn(Schema):
    """An address, the code that went there (purpose `sign_in`), and the password to be."""

    email: To
    code: Code
    password: Password
    nickname: Nickname = ""
    language: Literal["", "zh-hans", "en"] = ""
    captcha: CaptchaAnswer = ""


class ResetIn(Schema):
    """A phone or an address, the code that went there (purpose `reset`), and the new password."""

    channel: Channel
    to: To
    code: Code
    password: Password
    captcha: CaptchaAnswer = ""


@router.get("/methods", response=Envelope[MethodsOut], by_alias=True)
def methods(request: HttpRequest) -> Any:
    """Say what ways in are offered to this client here: WeChat's only where WeChat is."""
    tenant = current_tenant(request)
    chosen = codes.settings_of(tenant)
    agent = request.headers.get("User-Agent", "")
    has_mail = codes.offers(tenant, chosen, Channel.EMAIL)
    offered = {
        "wechat": "miniProgram" in agent and MiniProgram.objects.exists(),
        "wechat_h5": chosen.has_wechat and webauth.is_inside_wechat(agent),
        "phone_code": codes.offers(tenant, chosen, Channel.PHONE),
        "email_code": has_mail,
        "email_password": has_mail and chosen.by_password,
        "password": chosen.by_password,
        "guest": Tenant.objects.get(pk=tenant.pk).allow_guest,
    }
    is_guarded = captcha.chosen() is not None
    return ok(
        {
            "methods": [name for name, is_offered in offered.items() if is_offered],
            "register_": chosen.by_password,
            "code_digits": codes.DIGITS,
            "code_seconds": settings.CODE_SECONDS,
            "resend_seconds": settings.CODE_RESEND_SECONDS,
            "captcha": {"provider": settings.CAPTCHA_PROVIDER, "site_key": settings.CAPTCHA_SITE_KEY}
            if is_guarded
            else None,
        }
    )


@router.post("/code", response=Envelope[SentOut])
def send_code(request: HttpRequest, payload: CodeIn) -> Any:
    """Send a code to a phone or an address; the answer is the same whether or not an account goes with it."""
    tenant = current_tenant(request)
    address = address_of(request)
    who = (f"{tenant.slug}:{address}",)
    captcha.ask_if_due(door="code", who=who, answer=payload.captcha, address=address)
    captcha.note_failure(door="code", who=who)  # messages cost money: each is a reason to ask a person
    sent = codes.send_code(
        tenant=tenant,
        channel=payload.channel,
        to=payload.to,
        purpose=payload.purpose,
        address=address,
        language=translation.get_language() or settings.LANGUAGE_CODE,
    )
    return ok(sent._asdict())


@router.post("/code/login", response=Envelope[LoggedIn])
def log_in_with_code(request: HttpRequest, payload: CodeLoginIn) -> Any:
    """Log in with a code, as a new user at the first time; with a guest's token the guest becomes that user."""
    tenant = current_tenant(request)
    _require_offer(tenant, payload.channel)
    with guarded(request, "code_login", payload.to.lower(), payload.captcha):
        target = _proved(tenant, payload.channel, payload.to, payload.code)
    user = identities.arrive(
        tenant=tenant,
        channel=payload.channel,
        target=target,
        guest=guest_of(request),
        admit_new=lambda: count_newcomer(request),
        nickname=payload.nickname,
    )
    return log_in(request, user, f"{payload.channel}_code")


@router.post("/email/register", response=Envelope[LoggedIn])
def register_with_email(request: HttpRequest, payload: EmailRegisterIn) -> Any:
    """Sign up with an address and a password; whoever has an account with it sets its password, having proved it."""
    tenant = current_tenant(request)
    _require_offer(tenant, Channel.EMAIL)
    identities.require_password(payload.password)
    with guarded(request, "code_login", payload.email.lower(), payload.captcha):
        target = _proved(tenant, Channel.EMAIL, payload.email, payload.code)
    user = identities.arrive(
        tenant=tenant,
        channel=Channel.EMAIL,
        target=target,
        guest=guest_of(request),
        admit_new=lambda: count_newcomer(request),
        nickname=payload.nickname,
        language=payload.language,
    )
    identities.set_password(user=user, password=payload.password)
    return log_in(request, user, "register")


@router.post("/password/reset", response=Envelope[LoggedIn])
def reset_password(request: HttpRequest, payload: ResetIn) -> Any:
    """Set a new password by a code, and log in; every other log-in ends."""
    tenant = current_tenant(request)
    with guarded(request, "code_login", payload.to.lower(), payload.captcha):
        user = identities.reset_password(
            tenant=tenant, channel=payload.channel, to=payload.to, code=payload.code, password=payload.password
        )
    return log_in(request, user, "reset")


@router.get("/wechat/h5/start", response={302: None})
def wechat_start(request: HttpRequest, to: str = "/") -> HttpResponse:
    """Send a browser inside WeChat to WeChat's consent page; `to` is the path of ours at which it then goes on."""
    tenant = _tenant_of_page(request)
    chosen = codes.settings_of(tenant)
    if not chosen.has_wechat:
        return _go_on(to, "method_not_offered")
    if not webauth.is_inside_wechat(request.headers.get("User-Agent", "")):
        return _go_on(to, "wechat_browser_needed")
    back = request.build_absolute_uri(reverse("api-1:wechat_back"))
    trip = webauth.begin(tenant=tenant, chosen=chosen, back_to=to, redirect_uri=back, open_url=settings.WECHAT_OPEN_URL)
    response = HttpResponseRedirect(trip.url)
    _keep(request, response, BROWSER_COOKIE, trip.browser)
    return response


@router.get("/wechat/h5/back", response={302: None}, url_name="wechat_back")
def wechat_back(request: HttpRequest, code: str = "", state: str = "") -> HttpResponse:
    """Take the browser back from WeChat and send it on to our page, whose `?wechat=` says `done` or what was wrong."""
    tenant = _tenant_of_page(request)
    browser = request.COOKIES.get(BROWSER_COOKIE, "")
    try:
        back_to = webauth.come_back(tenant=tenant, state=state, browser=browser)
    except ProductError as refusal:
        logger.info("wechat_state_refused")
        return _go_on("/", refusal.type)
    if not code or len(code) > 128:  # noqa: PLR2004  # WeChat's have 32
        return _go_on(back_to, "wechat_declined")
    response = _go_on(back_to, "done")
    _keep(request, response, CODE_COOKIE, webauth.parcel(tenant=tenant, code=code, browser=browser))
    return response


@router.post("/wechat/h5/finish", response=Envelope[LoggedIn])
def wechat_finish(request: HttpRequest, response: HttpResponse) -> Any:
    """Log in with what the browser brought from WeChat, in its cookies; a guest new to WeChat becomes that user."""
    app_id, session, nickname = web_session_of(request, response)
    user = user_of_wechat(
        tenant_id=current_tenant(request).pk,
        app_id=app_id,
        session=session,
        guest=guest_of(request),
        nickname=nickname,
    )
    return log_in(request, user, "wechat_h5")


def web_session_of(request: HttpRequest, response: HttpResponse) -> tuple[str, WeChatSession, str]:
    """Return app id, open id and nickname of whoever comes back from WeChat, and drop the cookies: they are good once.

    Raises ProductError INVALID "wechat_state_invalid" or "method_not_offered", or as `WeChatClient.web_session`.
    """
    tenant = _tenant_of_page(request)
    chosen = codes.settings_of(tenant)
    if not chosen.has_wechat:
        raise codes.not_offered()
    code = webauth.unparcel(
        tenant=tenant,
        carried=request.COOKIES.get(CODE_COOKIE, ""),
        browser=request.COOKIES.get(BROWSER_COOKIE, ""),
    )
    for name in (CODE_COOKIE, BROWSER_COOKIE):
        response.delete_cookie(name, path=COOKIE_PATH, samesite="Lax")
    session, nickname = client_for(settings.WECHAT_API_URL).web_session(
        app_id=chosen.wechat_app_id,
        secret=chosen.wechat_secret,
        code=code,
        asks_profile=chosen.wechat_asks_profile,
    )
    return chosen.wechat_app_id, session, nickname


def _proved(tenant: Tenant, channel: str, to: str, code: str) -> str:
    return codes.check_code(tenant=tenant, channel=channel, to=to, code=code, purpose=Purpose.SIGN_IN)


def _require_offer(tenant: Tenant, channel: str) -> None:
    if not codes.offers(tenant, codes.settings_of(tenant), channel):
        raise codes.not_offered()


def _tenant_of_page(request: HttpRequest) -> Tenant:
    """Return the tenant whose own host the browser is on: an app id in the address may not lead it to another's."""
    tenant = current_tenant(request)
    if resolve_tenant(host=host_name(request.get_host())).pk != tenant.pk:
        raise ProductError(ErrorCode.NOT_FOUND, _("There is nothing at this address."), type="no_such_path")
    return tenant


def _go_on(to: str, word: str) -> HttpResponseRedirect:
    """Send the browser to a path of ours, never to another host, with a word for the page in `?wechat=`."""
    path = urlsplit(webauth.local_path(to))
    query = "&".join(part for part in (path.query, f"wechat={word}") if part)
    fragment = f"#{path.fragment}" if path.fragment else ""
    # Once more, now that it is put together: a path of blanks or of two slashes would lead elsewhere.
    return HttpResponseRedirect(webauth.local_path(f"{path.path}?{query}{fragment}"))


def _keep(request: HttpRequest, response: HttpResponse, name: str, value: str) -> None:
    response.set_cookie(
        name,
        value,
        max_age=webauth.TRIP_SECONDS,
        path=COOKIE_PATH,
        secure=request.is_secure() or settings.HTTPS_ONLY,
        httponly=True,
        samesite="Lax",
    )
