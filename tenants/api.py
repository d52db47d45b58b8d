"""The JSON API: its envelope, its errors, and signing in. Other apps add their routers to `api` in saas/urls.py.

Success is `{"code": 1, "msg": "ok", "data": …}`; a failure is the one error object (docs/protocol.md, "Errors").
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar, cast
from zoneinfo import ZoneInfo

import structlog
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone, translation
from django.utils.translation import gettext_lazy as _
from ninja import NinjaAPI, Router, Schema
from ninja.errors import HttpError, ValidationError
from pydantic import AfterValidator, Field, PlainSerializer, StringConstraints

from tenants import avatars, captcha, codes, scope, throttle
from tenants.devices import device_of
from tenants.errors import ErrorCode, ProductError
from tenants.login import (
    issue_token,
    log_in_with_password,
    log_in_with_wechat,
    register,
    revoke_token,
    start_guest,
    token_of,
    user_of_token,
)
from tenants.models import EndUser, Tenant
from tenants.resolve import app_id_of_referer, not_found, resolve_tenant
from tenants.wechat import client_for

logger = structlog.get_logger(__name__)

DataT = TypeVar("DataT")

LOGIN_WINDOW_SECONDS = 15 * 60
DAY_SECONDS = 24 * 60 * 60


class Envelope(Schema, Generic[DataT]):
    """What every success looks like."""

    code: Literal[1] = 1
    msg: Literal["ok"] = "ok"
    data: DataT


def ok(data: Any = None) -> dict[str, Any]:
    """Return a success that carries `data`."""
    return {"code": 1, "msg": "ok", "data": data}


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("contains a NUL character, which PostgreSQL cannot store")
    return text


# Text from outside that may reach the database; add a length with Field(max_length=…).
Text = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_storable)]
# Micro-yuan to a client: a 64-bit integer does not fit into JavaScript's numbers.
Amount = Annotated[int, PlainSerializer(str, return_type=str)]
Password = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_storable)]


# A month of a file that a person asks for, "2026-11"; None is the present one.
Month = Annotated[str | None, Field(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")]


class Span(NamedTuple):
    """A month of the tenant's time zone: its first moment, and the next month's."""

    name: str
    began: datetime
    ended: datetime
    zone: ZoneInfo


def span_of(request: HttpRequest, month: str | None) -> Span:
    """Return the month that a request names, or the present one, as the tenant's calendar has it."""
    zone = ZoneInfo(current_tenant(request).timezone)
    name = month or f"{timezone.now().astimezone(zone):%Y-%m}"
    began = datetime.fromisoformat(f"{name}-01").replace(tzinfo=zone)
    ended = (began + timedelta(days=31)).replace(day=1)
    return Span(name, began, ended, zone)


def current_tenant(request: HttpRequest) -> Tenant:
    """Return the request's tenant; raise NOT_FOUND on a host that is nobody's and without an app id."""
    tenant: Tenant | None = getattr(request, "tenant", None)
    if tenant is None:
        raise not_found()
    return tenant


def token_in(request: HttpRequest) -> str | None:
    """Return the token that a request carries."""
    return token_of({name.lower(): value for name, value in request.headers.items()}, request.GET)


def signed_in(request: HttpRequest) -> EndUser:
    """Return the user of the request's token and speak their language; for `auth=`, views then call `user_of`."""
    user = user_of_token(tenant_id=current_tenant(request).pk, token=token_in(request))
    if user.language:
        translation.activate(user.language)  # until tenants.middleware.enter_tenant leaves its own
    return user


def user_of(request: HttpRequest) -> EndUser:
    """Return the user that `auth=signed_in` found."""
    return cast("EndUser", request.auth)  # type: ignore[attr-defined]


def counted_as(request: HttpRequest) -> str:
    """Return the name that `throttle` counts the signed-in user under."""
    return f"{current_tenant(request).slug}:user {user_of(request).pk}"


def guest_of(request: HttpRequest) -> EndUser | None:
    """Return the guest whose token a request to sign in carries, who then goes on as the one who signs in."""
    try:
        user = user_of_token(tenant_id=current_tenant(request).pk, token=token_in(request))
    except ProductError:
        return None  # a token that is over is no hindrance to signing in anew
    return user if user.is_guest else None


# No page of documentation: ninja's loads scripts from a foreign host. saas.openapi serves the document.
api = NinjaAPI(title="Banyan", version="1", docs_url=None, openapi_url=None)


def _answer(request: HttpRequest, failure: ProductError) -> HttpResponse:
    body = failure.body(getattr(request, "request_id", ""))
    return api.create_response(request, body, status=failure.status)


@api.exception_handler(ProductError)
def _product_error(request: HttpRequest, failure: ProductError) -> HttpResponse:
    return _answer(request, failure)


@api.exception_handler(ValidationError)
def _validation_error(request: HttpRequest, failure: ValidationError) -> HttpResponse:
    """Name the fields, never their values: one of them may be a password."""
    fields = sorted({str(problem["loc"][-1]) for problem in failure.errors if problem.get("loc")})
    msg = _("Missing or wrong: %(fields)s.") % {"fields": ", ".join(fields)}
    return _answer(request, ProductError(ErrorCode.INVALID, msg, type="invalid_request", fields=fields))


@api.exception_handler(HttpError)
def _http_error(request: HttpRequest, failure: HttpError) -> HttpResponse:
    logger.info("request_refused", status=failure.status_code)
    return _answer(
        request, ProductError(ErrorCode.INVALID, _("The request cannot be understood."), type="invalid_request")
    )


@api.exception_handler(Http404)
def _http_404(request: HttpRequest, _failure: Http404) -> HttpResponse:
    return _answer(
        request, ProductError(ErrorCode.NOT_FOUND, _("There is nothing at this address."), type="no_such_path")
    )


@api.exception_handler(Exception)
def _fault(request: HttpRequest, failure: Exception) -> HttpResponse:
    logger.error("unhandled_exception", path=request.path, exc_info=failure)
    return _answer(
        request,
        ProductError(ErrorCode.OTHER, _("Something went wrong here. Please try again later."), type="internal"),
    )


# What a captcha's widget gave the page; wanted only after a refusal "captcha_needed".
CaptchaAnswer = Annotated[Text, Field(max_length=4096)]


class LoginIn(Schema):
    """A user name, phone or e-mail, and the password."""

    identifier: Annotated[Text, Field(min_length=1, max_length=254)]
    password: Password
    captcha: CaptchaAnswer = ""


class RegisterIn(Schema):
    """A new user's name and password."""

    username: Annotated[Text, Field(min_length=1, max_length=32)]
    password: Password
    nickname: Annotated[Text, Field(max_length=64)] = ""
    language: Literal["", "zh-hans", "en"] = ""


class MeIn(Schema):
    """What a person may change of how they are called and spoken to; what is left out stays."""

    nickname: Annotated[Text, Field(max_length=64)] | None = None
    language: Literal["", "zh-hans", "en"] | None = None


class WeChatIn(Schema):
    """What `wx.login` gave; the app id is wanted where neither host nor referer tell."""

    code: Annotated[Text, Field(min_length=1, max_length=128)]
    appid: Annotated[Text, Field(max_length=32)] = ""


class UserOut(Schema):
    """A person, to themselves. `avatar_url` is a path of the host that was asked; null without an avatar."""

    id: int
    username: str | None
    phone: str | None
    email: str | None
    nickname: str
    language: str
    is_guest: bool
    avatar_url: str | None


class LoggedIn(Schema):
    """A token, shown this once, and whose it is."""

    token: str
    user: UserOut


auth = Router(tags=["auth"])


def address_of(request: HttpRequest) -> str:
    """Return the client's address; behind a proxy the server has put it there (docs/deployment.md)."""
    return str(request.META.get("REMOTE_ADDR", ""))


def count_newcomer(request: HttpRequest) -> None:
    """Count a new user of an address; raise ProductError QUOTA "too_many_tries" beyond the day's."""
    who = f"{current_tenant(request).slug}:{address_of(request)}"
    throttle.count(what="new_user", who=who, limit=settings.NEW_USERS_PER_DAY, seconds=DAY_SECONDS)


def log_in(request: HttpRequest, user: EndUser, label: str) -> dict[str, Any]:
    """Return the answer to whoever has signed in: a new token, and who they are."""
    device = device_of(request.headers.get("User-Agent", ""))
    return ok({"token": issue_token(user=user, label=label, device=device), "user": avatars.with_address(user)})


def _require_passwords(tenant: Tenant) -> None:
    if not codes.settings_of(tenant).by_password:
        raise codes.not_offered()


@contextmanager
def guarded(
    request: HttpRequest, door: str, name: str, answer: str, *, count: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Ask for a captcha at a door that failed too often for an address or a name; remember a failure behind it.

    `count` counts a try, once for both requests of whoever is told to solve one: the first has tried nothing, and an
    answer is not looked at before its try is counted.
    """
    slug = current_tenant(request).slug
    who = (f"{slug}:{name}", f"{slug}:{address_of(request)}")
    if answer:
        count()
    captcha.ask_if_due(door=door, who=who, answer=answer, address=address_of(request))
    if not answer:
        count()
    try:
        yield
    except ProductError as refusal:
        if refusal.type in {"wrong_password", "code_wrong"}:
            captcha.note_failure(door=door, who=who)
        raise


@auth.post("/login", response=Envelope[LoggedIn])
def login(request: HttpRequest, payload: LoginIn) -> Any:
    """Log in with a password."""
    tenant, name = current_tenant(request), payload.identifier.lower()
    _require_passwords(tenant)

    def count() -> None:
        # Many people share an address, behind a carrier's or an office's; few share an account.
        for who, limit in ((name, settings.LOGIN_TRIES), (address_of(request), settings.LOGIN_TRIES * 10)):
            throttle.count(what="login", who=f"{tenant.slug}:{who}", limit=limit, seconds=LOGIN_WINDOW_SECONDS)

    with guarded(request, "login", name, payload.captcha, count=count):
        user = log_in_with_password(tenant=tenant, identifier=payload.identifier, password=payload.password)
    return log_in(request, user, "password")


@auth.post("/register", response=Envelope[LoggedIn])
def sign_up(request: HttpRequest, payload: RegisterIn) -> Any:
    """Make a user with a password, logged in; with a guest's token the guest becomes that user."""
    _require_passwords(current_tenant(request))
    count_newcomer(request)
    user = register(tenant=current_tenant(request), guest=guest_of(request), **payload.dict())
    return log_in(request, user, "register")


@auth.post("/guest", response=Envelope[LoggedIn])
def guest(request: HttpRequest) -> Any:
    """Make a guest, where the tenant allows it: each brings a free quota, so an address gets a few a day."""
    count_newcomer(request)
    return log_in(request, start_guest(tenant=current_tenant(request)), "guest")


@auth.post("/wechat", response=Envelope[LoggedIn])
def wechat(request: HttpRequest, payload: WeChatIn) -> Any:
    """Log in with a mini-program's `wx.login` code; with a guest's token a guest new to WeChat becomes that user."""
    referer = request.headers.get("Referer")
    app_id = payload.appid or request.GET.get("appid") or app_id_of_referer(referer)
    tenant = resolve_tenant(host=request.get_host(), app_id=app_id, referer=referer)
    if tenant != (request.tenant or tenant):  # type: ignore[attr-defined]
        raise not_found()  # the body's app id contradicts the query's
    with scope.tenant(tenant.pk):
        user = log_in_with_wechat(
            tenant=tenant,
            app_id=app_id,
            code=payload.code,
            client=client_for(settings.WECHAT_API_URL),
            guest=guest_of(request) if request.tenant else None,  # type: ignore[attr-defined]  # the middleware's
        )
        return log_in(request, user, "wechat")


@auth.post("/logout", response=Envelope[None], auth=signed_in)
def logout(request: HttpRequest) -> Any:
    """End this log-in; others of the same user go on."""
    revoke_token(tenant_id=current_tenant(request).pk, token=token_in(request) or "")
    return ok()


@auth.get("/me", response=Envelope[UserOut], auth=signed_in)
def me(request: HttpRequest) -> Any:
    """Return who is logged in."""
    return ok(avatars.with_address(user_of(request)))


@auth.post("/me", response=Envelope[UserOut], auth=signed_in)
def change_me(request: HttpRequest, payload: MeIn) -> Any:
    """Change one's nickname or language; an empty language follows the device's."""
    user = user_of(request)
    changes = payload.dict(exclude_none=True)
    if changes:
        EndUser.objects.filter(pk=user.pk).update(**changes)
        for name, value in changes.items():
            setattr(user, name, value)
    return ok(avatars.with_address(user))


api.add_router("/auth", auth)
