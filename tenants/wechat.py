"""WeChat's API: one HTTP client, and the calls that turn a log-in code into an open id.

`session` is for a mini-program's codes (`jscode2session`), `web_session` for those that a browser brings back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from typing import Any, Final

import httpx
import orjson
import structlog
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from tenants.errors import ErrorCode, ProductError

logger = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 5.0
# How a picture begins: JPEG, or PNG.
_PICTURES: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


# https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/user-login/code2Session.html
class _Code(IntEnum):
    BUSY = -1
    CODE_INVALID = 40029
    CODE_USED = 40163
    TOO_OFTEN = 45011
    RISKY_USER = 40226


class WeChatAwayError(Exception):
    """WeChat gave no answer, or none that can be read. Its text is for the log, and holds no secret."""


@dataclass(frozen=True, kw_only=True)
class WeChatSession:
    """Who WeChat says has logged in. The session key, a secret, is good until the person's next log-in."""

    openid: str
    unionid: str = ""
    session_key: str = field(default="", repr=False)


class WeChatClient:
    """Calls WeChat's API at `base_url` over one pool of connections; threads may share it."""

    def __init__(self, base_url: str) -> None:
        self._http = httpx.Client(base_url=base_url, timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def session(self, *, app_id: str, secret: str, code: str) -> WeChatSession:
        """Exchange a `wx.login` code, which is good once and for five minutes.

        Raises ProductError: INVALID "wechat_code_invalid" or "wechat_account_refused", QUOTA "wechat_too_often",
        UPSTREAM "wechat_unavailable", OTHER "wechat_misconfigured".
        """
        answer = self._ask(app_id, secret, code)
        if answer.get("errcode") == _Code.BUSY:  # WeChat's documentation asks to try again
            answer = self._ask(app_id, secret, code)
        errcode = answer.get("errcode") or 0
        if errcode:
            raise _refusal(errcode, app_id)
        openid = answer.get("openid")
        if not isinstance(openid, str) or not openid:
            raise unavailable()
        return WeChatSession(
            openid=openid,
            unionid=str(answer.get("unionid") or ""),
            session_key=str(answer.get("session_key") or ""),
        )

    def web_session(self, *, app_id: str, secret: str, code: str, asks_profile: bool) -> tuple[WeChatSession, str]:
        """Exchange the code of a web authorization, good once and for five minutes; return also the nickname, if asked.

        Source: https://developers.weixin.qq.com/doc/offiaccount/OA_Web_Apps/Wechat_webpage_authorization.html

        Raises ProductError as `session`, and INVALID "wechat_snapshot": the page is only a preview of itself, and the
        open id nobody's.
        """
        question = {"appid": app_id, "secret": secret, "code": code, "grant_type": "authorization_code"}
        answer = self._told("/sns/oauth2/access_token", question, app_id)
        if answer.get("is_snapshotuser") == 1:
            raise ProductError(
                ErrorCode.INVALID,
                _("This is WeChat's preview of the page. Please open the whole page to log in."),
                type="wechat_snapshot",
            )
        openid = answer.get("openid")
        if not isinstance(openid, str) or not openid:
            raise unavailable()
        unionid, nickname = str(answer.get("unionid") or ""), ""
        if asks_profile:
            question = {"access_token": str(answer.get("access_token")), "openid": openid, "lang": "zh_CN"}
            profile = self._told("/sns/userinfo", question, app_id)
            unionid, nickname = str(profile.get("unionid") or unionid), str(profile.get("nickname") or "")
        return WeChatSession(openid=openid, unionid=unionid), nickname

    def _told(self, path: str, question: Mapping[str, str], app_id: str) -> dict[str, Any]:
        try:
            answer = self.ask("GET", path, query=question)
        except WeChatAwayError:
            raise unavailable() from None
        if errcode := answer.get("errcode") or 0:
            raise _refusal(errcode, app_id)
        return answer

    def ask(self, method: str, path: str, *, query: Mapping[str, str], body: bytes = b"") -> dict[str, Any]:
        """Make one call; raise WeChatAwayError where no answer comes."""
        call = path.rpartition("/")[2]
        return _read(call, self._send(call, method, path, query=query, body=body))

    def ask_for_picture(self, path: str, *, query: Mapping[str, str], body: bytes) -> bytes | dict[str, Any]:
        """Make one call that brings a picture; return it, or what WeChat says in its place. Raises WeChatAwayError."""
        call = path.rpartition("/")[2]
        response = self._send(call, "POST", path, query=query, body=body)
        is_picture = response.status_code == httpx.codes.OK and response.content.startswith(_PICTURES)
        return response.content if is_picture else _read(call, response)

    def _send(self, call: str, method: str, path: str, *, query: Mapping[str, str], body: bytes) -> httpx.Response:
        """Return the answer. No failure carries httpx's own text: it would quote the URL, and the secrets in it."""
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            return self._http.request(method, path, params=dict(query), content=body, headers=headers)
        except httpx.HTTPError as failure:
            raise _away(call, failure) from None

    def _ask(self, app_id: str, secret: str, code: str) -> dict[str, Any]:
        question = {"appid": app_id, "secret": secret, "js_code": code, "grant_type": "authorization_code"}
        try:
            return self.ask("GET", "/sns/jscode2session", query=question)
        except WeChatAwayError:
            raise unavailable() from None


def _read(call: str, response: httpx.Response) -> dict[str, Any]:
    # WeChat says text/plain; what counts is the body.
    try:
        answer = orjson.loads(response.content)
    except orjson.JSONDecodeError as failure:
        raise _away(call, failure) from None
    if response.status_code != httpx.codes.OK or not isinstance(answer, dict):
        logger.warning("wechat_unavailable", call=call, status=response.status_code)
        raise WeChatAwayError(f"{call}: status {response.status_code}")
    return answer


def _away(call: str, failure: Exception) -> WeChatAwayError:
    logger.warning("wechat_unavailable", call=call, failure=type(failure).__name__)
    return WeChatAwayError(f"{call}: {type(failure).__name__}")


_clients: Final[dict[str, WeChatClient]] = {}


def client_for(base_url: str) -> WeChatClient:
    """Return the process's client for an API host of the settings: making one costs 25 ms."""
    if base_url not in _clients:
        _clients.setdefault(base_url, WeChatClient(base_url))
    return _clients[base_url]


def close_client(base_url: str) -> None:
    """Close the client for an API host; who asks for it again gets a new one."""
    if base_url in _clients:
        _clients.pop(base_url).close()


def unavailable() -> ProductError:
    """Return the refusal where WeChat gives no answer (500)."""
    return ProductError(
        ErrorCode.UPSTREAM, _("WeChat does not answer just now. Please try again."), type="wechat_unavailable"
    )


def _refusal(errcode: object, app_id: str) -> ProductError:
    match errcode:
        case _Code.BUSY:
            return unavailable()
        case _Code.CODE_INVALID | _Code.CODE_USED:
            return ProductError(
                ErrorCode.INVALID, _("This WeChat log-in has expired. Please try again."), type="wechat_code_invalid"
            )
        case _Code.TOO_OFTEN:
            return ProductError(
                ErrorCode.QUOTA,
                _("Too many log-ins in a short time. Please wait a minute."),
                type="wechat_too_often",
                scope="user",
                action="wait",
                reset_at=timezone.now() + timedelta(minutes=1),
                used=None,  # WeChat counts, and tells no figures
                limit=None,
            )
        case _Code.RISKY_USER:
            return ProductError(
                ErrorCode.INVALID,
                _("WeChat does not let this account log in. Please use another way to log in."),
                type="wechat_account_refused",
            )
        case _:
            # A wrong app id or secret and the like: the tenant's staff can mend it, the person cannot.
            logger.error("wechat_misconfigured", call="log-in", errcode=errcode, app_id=app_id)
            return ProductError(
                ErrorCode.OTHER,
                _("Log-in with WeChat is not set up correctly here. Please tell the service's support."),
                type="wechat_misconfigured",
                scope="tenant",
            )
