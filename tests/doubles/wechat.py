"""WeChat's API as its documentation describes it, over real HTTP on the loopback interface.

Answers are JSON under `text/plain`, with status 200, failures included, as WeChat's are.
"""

import base64
import json
import secrets
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit


@dataclass
class WeChatDouble:
    """One platform: who may ask, what codes `wx.login` has given out, and what goes wrong next."""

    url: str = ""
    secrets: dict[str, str] = field(default_factory=dict)  # by app id
    codes: dict[str, dict[str, str]] = field(default_factory=dict)  # code -> appid, openid, unionid
    used: set[str] = field(default_factory=set)
    failures: deque[int] = field(default_factory=deque)  # error codes of the next answers
    raw: deque[tuple[int, bytes]] = field(default_factory=deque)  # status and body of the next answers, before those
    asked: list[dict[str, str]] = field(default_factory=list)
    web_tokens: dict[str, dict[str, str]] = field(default_factory=dict)
    session_keys: dict[tuple[str, str], str] = field(default_factory=dict)  # the last, by app id and open id

    def wx_login(self, *, app_id: str, openid: str, unionid: str = "") -> str:
        """Give out a code, as `wx.login` does on a phone."""
        code = f"0{len(self.codes):031d}"
        self.codes[code] = {"appid": app_id, "openid": openid, "unionid": unionid}
        return code

    def jscode2session(self, query: dict[str, str]) -> dict[str, Any]:
        """Answer one call."""
        if self.failures:
            return _failure(self.failures.popleft())
        app_id, code = query.get("appid", ""), query.get("js_code", "")
        if app_id not in self.secrets:
            return _failure(40013)
        if query.get("secret") != self.secrets[app_id]:
            return _failure(40125)
        known = self.codes.get(code)
        if query.get("grant_type") != "authorization_code" or known is None or known["appid"] != app_id:
            return _failure(40029)
        if code in self.used:
            return _failure(40163)
        self.used.add(code)
        session_key = base64.b64encode(secrets.token_bytes(16)).decode()
        self.session_keys[app_id, known["openid"]] = session_key
        session = {"session_key": session_key, "openid": known["openid"]}
        return {**session, "unionid": known["unionid"]} if known["unionid"] else session

    def consent(self, url: str, *, openid: str, unionid: str = "", nickname: str = "", snapshot: bool = False) -> str:
        """Let a person agree on the consent page at `url`; return where WeChat then sends the browser."""
        query = dict(parse_qsl(urlsplit(url).query))
        scope, state = query["scope"], query["state"]
        if (urlsplit(url).path, urlsplit(url).fragment) != ("/connect/oauth2/authorize", "wechat_redirect"):
            raise ValueError("WeChat shows an empty page")
        if query["response_type"] != "code" or scope not in {"snsapi_base", "snsapi_userinfo"}:
            raise ValueError("WeChat shows an empty page")
        if not state.isalnum() or len(state.encode()) > 128:
            raise ValueError("state: letters and digits, 128 bytes")
        code = f"1{len(self.codes):031d}"
        self.codes[code] = {
            "appid": query["appid"],
            "openid": openid,
            "unionid": unionid,
            "nickname": nickname,
            "scope": scope,
            "snapshot": "1" if snapshot else "",
        }
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': state})}"

    def oauth2_access_token(self, query: dict[str, str]) -> dict[str, Any]:
        """Exchange a code of the consent page."""
        if self.failures:
            return _failure(self.failures.popleft())
        app_id, code = query.get("appid", ""), query.get("code", "")
        if app_id not in self.secrets:
            return _failure(40013)
        if query.get("secret") != self.secrets[app_id]:
            return _failure(40125)
        known = self.codes.get(code)
        if query.get("grant_type") != "authorization_code" or known is None or known["appid"] != app_id:
            return _failure(40029)
        if code in self.used:
            return _failure(40163)
        self.used.add(code)
        token = f"web-token-{code}"
        self.web_tokens[token] = known
        told: dict[str, Any] = {
            "access_token": token,
            "expires_in": 7200,
            "refresh_token": "r",
            "openid": known["openid"],
            "scope": known["scope"],
        }
        if known["snapshot"]:
            told["is_snapshotuser"] = 1
        if known["unionid"] and known["scope"] == "snsapi_userinfo":
            told["unionid"] = known["unionid"]
        return told

    def userinfo(self, query: dict[str, str]) -> dict[str, Any]:
        """Tell who somebody is, who agreed to that."""
        known = self.web_tokens.get(query.get("access_token", ""))
        if known is None or known["openid"] != query.get("openid"):
            return _failure(40003)
        if known["scope"] != "snsapi_userinfo":
            return _failure(48001)
        told = {"openid": known["openid"], "nickname": known["nickname"], "headimgurl": ""}
        return {**told, "unionid": known["unionid"]} if known["unionid"] else told

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        """Return status and body."""
        self.asked.append(query)
        if self.raw:
            return self.raw.popleft()
        calls = {
            "/sns/jscode2session": self.jscode2session,
            "/sns/oauth2/access_token": self.oauth2_access_token,
            "/sns/userinfo": self.userinfo,
        }
        if path not in calls:
            return 404, b"404 page not found"
        return 200, json.dumps(calls[path](query)).encode()


_MESSAGES = {
    -1: "system error",
    40003: "invalid openid",
    40013: "invalid appid",
    40029: "invalid code",
    40125: "invalid appsecret",
    40163: "code been used",
    40226: "code blocked",
    48001: "api unauthorized",
    45011: "api minute-quota reach limit  must slower  retry next minute",
}


def _failure(errcode: int) -> dict[str, Any]:
    return {"errcode": errcode, "errmsg": f"{_MESSAGES[errcode]}, rid: 65f1a2b3-0c4d5e6f-7a8b9c0d"}


@contextmanager
def running_wechat() -> Iterator[WeChatDouble]:
    """Serve a double until the block ends."""
    double = WeChatDouble()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            status, body = double.answer(parts.path, dict(parse_qsl(parts.query)))
            self.send_response(status)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
            """Say nothing: a test's output is its own."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        double.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield double
        finally:
            server.shutdown()
            thread.join()
