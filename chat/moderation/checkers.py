"""A remote checker's contract, and two that fulfil it: WeChat's msg_sec_check and an OpenAI-style /moderations.

    Verdict            what a checker says of a text
    CheckerAwayError   it says nothing: no answer, or none that can be read

A checker that a user's text cannot be given to (`can_check`) is passed over: WeChat knows nobody but the users of its
mini-programs.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal, Protocol
from weakref import WeakKeyDictionary

import aiohttp
import orjson
import structlog

from chat.upstream.addresses import guarded_socket
from tenants.models import MiniProgram
from tenants.wechat import WeChatAwayError, client_for
from tenants.wechat_token import WeChatRefusedError, call

log = structlog.get_logger(__name__)

# A check that takes longer is none: it stands between a person and an answer.
SECONDS: Final = 4.0
# Threads for WeChat's calls, which are synchronous: theirs alone, so that a WeChat that hangs takes none of the
# database's.
_threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="moderation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Who wrote a text, or whom it is for: what a checker wants to know of the person."""

    user_id: int
    program: MiniProgram | None = field(default=None, repr=False)
    openid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a checker says: nothing ("pass"), have a person look ("flag"), or refuse ("block"). `label` says of what."""

    action: Literal["pass", "flag", "block"] = "pass"
    label: str = ""
    source: str = ""


class CheckerAwayError(Exception):
    """A checker gave no verdict. Its text is for the log and holds no secret."""


class Checker(Protocol):
    """Something outside that says whether a text may be shown."""

    def can_check(self, subject: Subject) -> bool:
        """Whether texts of this person can be given to it."""
        ...

    async def check(self, text: str, subject: Subject) -> Verdict:
        """Return what it says of a text of any length; raise CheckerAwayError."""
        ...


def _pieces(text: str, most: int) -> Iterator[str]:
    """Yield a text in pieces that overlap a little, so that no word is cut in two between them."""
    overlap = most // 50
    for start in range(0, max(1, len(text) - overlap), most - overlap):
        yield text[start : start + most]


# --- WeChat ---

# https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/sec-center/sec-check/msgSecCheck.html
_WECHAT_PATH: Final = "/wxa/msg_sec_check"
_WECHAT_MOST: Final = 2500  # characters
_WECHAT_VERSION: Final = 2
_WECHAT_ACTIONS: Final[dict[str, Literal["pass", "flag", "block"]]] = {
    "pass": "pass",
    "review": "flag",
    "risky": "block",
}
_WECHAT_LABELS: Final = {
    100: "normal",
    10001: "advertising",
    20001: "politics",
    20002: "porn",
    20003: "abuse",
    20006: "illegal",
    20008: "fraud",
    20012: "vulgar",
    20013: "copyright",
    21000: "other",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WeChatChecker:
    """msg_sec_check, version 2: for users of a mini-program who were in it within two hours."""

    base_url: str
    scene: int

    def can_check(self, subject: Subject) -> bool:
        """Whether the person has an open id of one of the tenant's mini-programs."""
        return subject.program is not None and subject.openid != ""

    async def check(self, text: str, subject: Subject) -> Verdict:
        """Return what WeChat says; of a long text the gravest that it says of a piece."""
        loop = asyncio.get_running_loop()
        verdict = Verdict(source="wechat")
        try:
            async with asyncio.timeout(SECONDS):
                for piece in _pieces(text, _WECHAT_MOST):
                    said = await loop.run_in_executor(_threads, self._ask, piece, subject)
                    if said.action == "block":
                        return said
                    verdict = said if said.action == "flag" else verdict
        except TimeoutError:
            raise CheckerAwayError("msg_sec_check: no answer in time") from None
        return verdict

    def _ask(self, text: str, subject: Subject) -> Verdict:
        assert subject.program is not None  # noqa: S101  can_check's
        question = {"version": _WECHAT_VERSION, "openid": subject.openid, "scene": self.scene, "content": text}
        try:
            answer = call(
                subject.program, client_for(self.base_url), _WECHAT_PATH, query={}, body=orjson.dumps(question)
            )
        except (WeChatAwayError, WeChatRefusedError) as away:
            raise CheckerAwayError(str(away)) from None
        result = answer.get("result")
        errcode = answer.get("errcode")
        action = _WECHAT_ACTIONS.get(result.get("suggest", "")) if isinstance(result, dict) else None
        if errcode or not isinstance(result, dict) or action is None:
            raise CheckerAwayError(f"msg_sec_check: errcode {errcode}")
        label = result.get("label")
        name = _WECHAT_LABELS.get(label, "") if isinstance(label, int) else ""
        return Verdict(action=action, label=name or str(label)[:64], source="wechat")


# --- OpenAI's ---

_MOST: Final = 20_000  # characters in one call; a model's window is larger
_MAX_ANSWER: Final = 256 * 1024  # bytes

# By where their connections may lead, as the model's own streams.
_Sessions = dict[frozenset[str] | None, aiohttp.ClientSession]
_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, _Sessions] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointChecker:
    """An endpoint that speaks OpenAI's /moderations. `may_reach`: the private networks its URL may lead to; None: any.

    Source: https://platform.openai.com/docs/api-reference/moderations
    """

    base_url: str
    api_key: str = field(default="", repr=False)
    model: str = ""
    may_reach: frozenset[str] | None = None

    def can_check(self, subject: Subject) -> bool:  # noqa: ARG002  the contract's
        """Whether anybody's texts can be given to it: everybody's."""
        return True

    async def check(self, text: str, subject: Subject) -> Verdict:  # noqa: ARG002  the contract's
        """Return what the endpoint says; a text is refused for one piece of it."""
        try:
            async with asyncio.timeout(SECONDS):
                for piece in _pieces(text, _MOST):
                    said = await self._ask(piece)
                    if said.action == "block":
                        return said
        except TimeoutError:
            raise CheckerAwayError("moderations: no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as fault:
            # The fault's own text would quote the URL.
            raise CheckerAwayError(f"moderations: {type(fault).__name__}") from None
        return Verdict(source="endpoint")

    async def _ask(self, text: str) -> Verdict:
        question = {"input": text, "model": self.model} if self.model else {"input": text}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.api_key}"}
        url = f"{self.base_url.rstrip('/')}/moderations"
        async with _session(self.may_reach).post(
            url, data=orjson.dumps(question), headers=headers, allow_redirects=False
        ) as response:
            if response.status != HTTPStatus.OK:
                raise CheckerAwayError(f"moderations: status {response.status}")
            body = bytearray()
            while len(body) < _MAX_ANSWER and (data := await response.content.readany()):
                body += data
        return _endpoint_verdict(orjson.loads(body))


def _endpoint_verdict(answer: Any) -> Verdict:
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list) or not results or not all(isinstance(result, dict) for result in results):
        raise CheckerAwayError("moderations: an answer without results")
    if not any(result.get("flagged") is True for result in results):
        return Verdict(source="endpoint")
    categories = [result.get("categories") for result in results]
    labels = {name for flags in categories if isinstance(flags, dict) for name, is_on in flags.items() if is_on is True}
    return Verdict(action="block", label=", ".join(sorted(labels))[:64], source="endpoint")


def _session(may_reach: frozenset[str] | None) -> aiohttp.ClientSession:
    sessions = _sessions.setdefault(asyncio.get_running_loop(), {})
    if may_reach not in sessions:
        sessions[may_reach] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=100,
                keepalive_timeout=4.0,
                socket_factory=None if may_reach is None else guarded_socket(may_reach),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "banyan"},
            trust_env=False,
        )
    return sessions[may_reach]


async def close() -> None:
    """Close the running loop's connections; a later check opens new ones."""
    for session in _sessions.pop(asyncio.get_running_loop(), {}).values():
        await session.close()
