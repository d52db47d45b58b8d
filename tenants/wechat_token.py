"""WeChat's access tokens: one for each app id, shared by all processes and fetched by one of them at a time.

They live in Redis, encrypted, since with one anybody could act for the mini-program. Redis is a convenience here:
WeChat's "stable" token is the same for whoever asks, so where Redis is away each process asks for itself.

Source: https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/mp-access-token/getStableAccessToken.html
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import orjson
import structlog
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from redis.exceptions import RedisError

from tenants.models import MiniProgram
from tenants.secrets import decrypt, encrypt
from tenants.wechat import WeChatAwayError, WeChatClient

logger = structlog.get_logger(__name__)

_Answer = TypeVar("_Answer", bound=bytes | dict[str, Any])

# A token is fetched anew so long before its end; WeChat lets the old one live for five minutes beside the new.
EARLY_SECONDS: Final = 300
SHORTEST_SECONDS: Final = 60
# So long one process may take to fetch, and the others wait for it.
LOCK_SECONDS: Final = 12
_WAIT_SECONDS: Final = 0.05

# What WeChat says to a token that is wrong, over, or made void by another.
_STALE: Final = frozenset({40001, 40014, 42001})


class WeChatRefusedError(Exception):
    """WeChat gives no token for this app id and secret; `code` is its own number."""

    def __init__(self, code: int) -> None:
        super().__init__(f"WeChat gives no access token: {code}")
        self.code = code


def call(
    program: MiniProgram, client: WeChatClient, path: str, *, query: Mapping[str, str], body: bytes = b""
) -> dict[str, Any]:
    """Call WeChat in the name of a mini-program: POST with a body, else GET; return the answer, refusals included.

    A token that WeChat refuses is fetched anew, once. Raises WeChatAwayError or WeChatRefusedError.
    """
    method = "POST" if body else "GET"
    return _with_token(
        program, client, lambda token: client.ask(method, path, query={"access_token": token, **query}, body=body)
    )


def call_for_picture(program: MiniProgram, client: WeChatClient, path: str, *, body: bytes) -> bytes | dict[str, Any]:
    """Do the same for a call that brings a picture; return what WeChat says in its place where it brings none."""
    return _with_token(
        program, client, lambda token: client.ask_for_picture(path, query={"access_token": token}, body=body)
    )


def _with_token(program: MiniProgram, client: WeChatClient, ask: Callable[[str], _Answer]) -> _Answer:
    token = access_token(program, client)
    answer = ask(token)
    if isinstance(answer, dict) and answer.get("errcode") in _STALE:
        logger.info("wechat_token_refused", app_id=program.app_id, errcode=answer["errcode"])
        answer = ask(access_token(program, client, refused=token))
    return answer


def access_token(program: MiniProgram, client: WeChatClient, *, refused: str = "") -> str:
    """Return the mini-program's token: the stored one, unless it is the one that was `refused`, else a new one."""
    kept = _kept(program.app_id)
    if kept and kept != refused:
        return kept
    with _one_at_a_time(program.app_id) as is_first:
        kept = _kept(program.app_id) if is_first else _wait(program.app_id, refused)
        if kept and kept != refused:
            return kept
        return _fetch(program, client, refused)


def try_secret(program: MiniProgram, client: WeChatClient) -> None:
    """See that WeChat takes a mini-program's app id and secret; raise WeChatAwayError or WeChatRefusedError.

    WeChat's "stable" token stays the one that is in use, so that asking disturbs nobody.
    """
    _ask(program, client, force=False)


def _fetch(program: MiniProgram, client: WeChatClient, refused: str) -> str:
    token, seconds = _ask(program, client, force=False)
    if token == refused:
        # WeChat holds the token for good and yet refuses it: only this makes another. Twenty times a day at most.
        token, seconds = _ask(program, client, force=True)
    try:
        cache.set(_key(program.app_id), encrypt(token), timeout=max(seconds - EARLY_SECONDS, SHORTEST_SECONDS))
    except RedisError as away:
        logger.warning("wechat_token_not_kept", fault=type(away).__name__)
    return token


def _ask(program: MiniProgram, client: WeChatClient, *, force: bool) -> tuple[str, int]:
    question = {
        "grant_type": "client_credential",
        "appid": program.app_id,
        "secret": program.secret,
        "force_refresh": force,
    }
    answer = client.ask("POST", "/cgi-bin/stable_token", query={}, body=orjson.dumps(question))
    token, seconds = answer.get("access_token"), answer.get("expires_in")
    if isinstance(token, str) and token and isinstance(seconds, int):
        return token, seconds
    errcode = answer.get("errcode")
    if isinstance(errcode, int) and errcode > 0:
        logger.error("wechat_misconfigured", call="stable_token", errcode=errcode, app_id=program.app_id)
        raise WeChatRefusedError(errcode)
    raise WeChatAwayError("stable_token: no token")


def _kept(app_id: str) -> str:
    """Return the stored token; empty if there is none that can be read."""
    try:
        return decrypt(cache.get(_key(app_id), ""))
    except RedisError as away:
        logger.warning("wechat_token_not_kept", fault=type(away).__name__)
    except ImproperlyConfigured:  # stored under a key that has been dropped
        logger.warning("wechat_token_not_readable", app_id=app_id)
    return ""


@contextmanager
def _one_at_a_time(app_id: str) -> Iterator[bool]:
    """Say whether the caller is the one to fetch. A lock whose holder died frees itself."""
    lock = f"{_key(app_id)}:lock"
    try:
        is_first = cache.add(lock, 1, timeout=LOCK_SECONDS)
    except RedisError:
        yield True
        return
    try:
        yield is_first
    finally:
        if is_first:
            try:
                cache.delete(lock)
            except RedisError:
                logger.warning("wechat_token_lock_left", app_id=app_id)


def _wait(app_id: str, refused: str) -> str:
    """Return what another process fetches; empty, or the refused one, if it does not come."""
    end = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < end and _is_locked(app_id):
        kept = _kept(app_id)
        if kept and kept != refused:
            return kept
        time.sleep(_WAIT_SECONDS)
    return _kept(app_id)


def _is_locked(app_id: str) -> bool:
    try:
        return cache.get(f"{_key(app_id)}:lock") is not None
    except RedisError:
        return False


def _key(app_id: str) -> str:
    return f"wechat_token:{app_id}"
