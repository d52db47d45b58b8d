"""What can go wrong upstream, and what follows: the table of classes, and the reading of refusals.

`RULES` is the only place that says which failures another account may cure, and what each means for the account that
failed. docs/upstreams.md has the same table in words.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from http import HTTPStatus
from typing import Any, Final

from chat.events import Failed, FailureKind
from chat.upstream.sse import as_dict, load_json, mend

MAX_DETAIL: Final = 500  # characters of a provider's message that a log keeps
MAX_RETRY_AFTER: Final = 3600.0  # seconds; a provider that names a longer time is asked again after an hour


class Blame(Enum):
    """What a failure means for the account."""

    NONE = "none"  # nothing: the request was at fault, or nobody
    COUNTED = "counted"  # one failure in the breaker's window
    PROVEN = "proven"  # the breaker opens at once: the next request would fail the same way
    REST = "rest"  # the account rests for as long as the provider says; the breaker does not count it


@dataclass(frozen=True, slots=True)
class Rule:
    """What follows from a class of failure."""

    fails_over: bool  # before the first output, another account is asked
    blame: Blame


RULES: Final[Mapping[FailureKind, Rule]] = {
    FailureKind.AUTH: Rule(fails_over=True, blame=Blame.PROVEN),
    FailureKind.QUOTA: Rule(fails_over=True, blame=Blame.PROVEN),
    FailureKind.RATE: Rule(fails_over=True, blame=Blame.REST),
    FailureKind.OVERLOAD: Rule(fails_over=True, blame=Blame.COUNTED),
    FailureKind.NETWORK: Rule(fails_over=True, blame=Blame.COUNTED),
    FailureKind.TIMEOUT: Rule(fails_over=True, blame=Blame.COUNTED),
    FailureKind.PROTOCOL: Rule(fails_over=True, blame=Blame.COUNTED),
    # A parameter or a model's name that this provider does not take, another may.
    FailureKind.REQUEST: Rule(fails_over=True, blame=Blame.NONE),
    # Zero output costs nothing, and is no answer.
    FailureKind.EMPTY: Rule(fails_over=True, blame=Blame.NONE),
    # The same model has the same window elsewhere.
    FailureKind.CONTEXT_TOO_LONG: Rule(fails_over=False, blame=Blame.NONE),
    # Another provider's moderation is not a way round this one's.
    FailureKind.CONTENT: Rule(fails_over=False, blame=Blame.NONE),
    # Nobody was asked.
    FailureKind.BUSY: Rule(fails_over=True, blame=Blame.NONE),
}


def blame_of(failed: Failed) -> Blame:
    """Return what a failure means for its account.

    A 403 is often about one model and proves nothing of the others. A 400's words may be the asker's own, repeated.
    """
    if failed.kind is FailureKind.OVERLOAD and failed.retry_after:
        return Blame.REST  # a 503 or 529 that names a time
    blame = RULES[failed.kind].blame
    if blame is Blame.PROVEN and failed.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN}:
        return Blame.COUNTED
    return blame


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds after which a provider wants to be asked again; 0 where it does not say, or not in time.

    Reads `retry-after-ms` (OpenAI, Azure) and `Retry-After`, in seconds or as a date (RFC 9110, 10.2.3).
    """
    try:
        if milliseconds := headers.get("retry-after-ms"):
            seconds = float(milliseconds) / 1000
        elif re.fullmatch(r"[0-9.]+", said := headers.get("retry-after", "")):
            seconds = float(said)
        else:
            seconds = _seconds_until(said)
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER) if math.isfinite(seconds) else 0.0


def _seconds_until(date: str) -> float:
    moment = parsedate_to_datetime(date)
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


# --- what a refusal is ---

_KIND_OF_STATUS: Final = {
    401: FailureKind.AUTH,
    402: FailureKind.QUOTA,
    403: FailureKind.AUTH,
    408: FailureKind.TIMEOUT,
    413: FailureKind.CONTEXT_TOO_LONG,
    429: FailureKind.RATE,
    451: FailureKind.CONTENT,
    504: FailureKind.TIMEOUT,
}
# What the body says outweighs the status. Words of OpenAI, Azure, DeepSeek, DashScope, Moonshot, Zhipu, Anthropic and
# llama.cpp.
_KIND_OF_WORDS: Final = (
    (
        FailureKind.CONTEXT_TOO_LONG,
        re.compile(
            r"context_length|context.?size|context length|context.?window|prompt is too long|input length"
            r"|exceeded model token limit|超长"
        ),
    ),
    (
        FailureKind.CONTENT,
        re.compile(
            r"content.?filter|content_policy|content management policy|data.?inspection|content exists risk|moderation"
            r"|sensitive (content|words)|敏感|不安全"
        ),
    ),
    (
        FailureKind.QUOTA,
        re.compile(
            r"insufficient.?(quota|balance|credit)|credit balance|exceeded.current.quota|billing|arrearage|余额|欠费"
        ),
    ),
    (FailureKind.AUTH, re.compile(r"invalid.?(x-)?api.?key|incorrect api key|authentication|unauthori[sz]ed")),
    (FailureKind.RATE, re.compile(r"rate.?limit|too many requests|throttling|速率|并发")),
    (FailureKind.OVERLOAD, re.compile(r"overloaded|访问量过大")),
)
_FAULTS: Final = range(400, 600)


def refusal(status: int, body: bytes) -> Failed:
    """Return the failure that a refusal means: its body, and its HTTP status, 0 for an event inside a stream.

    An object that tells a fault under status 200 is read as such an event would be.
    """
    said = load_json(body)
    said = said[0] if isinstance(said, list) and said else said  # Google's refusals are lists
    fault = as_dict(said).get("error") or said
    words = fault if isinstance(fault, str) else _words(as_dict(fault)) or body.decode("utf-8", "replace")
    means = _status_within(fault) if status == 0 or (status == HTTPStatus.OK and tells_a_fault(said)) else status
    return Failed(_kind(means, words), shorten(words), status)


def _status_within(fault: object) -> int:
    """Return the HTTP status that some providers write into an event inside a stream; else 500: theirs is the fault."""
    code = str(as_dict(fault).get("code"))
    return int(code) if re.fullmatch("[45][0-9][0-9]", code) else 500


def _kind(status: int, words: str) -> FailureKind:
    for kind, pattern in _KIND_OF_WORDS:
        if pattern.search(words.lower()):
            return kind
    if status in _KIND_OF_STATUS:
        return _KIND_OF_STATUS[status]
    if status in _FAULTS:
        return FailureKind.OVERLOAD if status >= HTTPStatus.INTERNAL_SERVER_ERROR else FailureKind.REQUEST
    return FailureKind.PROTOCOL  # a redirect, or a 200 that is no stream


def _words(fault: dict[str, Any]) -> str:
    parts = (fault.get(key) for key in ("code", "type", "status", "message", "msg", "detail"))
    return " ".join(str(part) for part in parts if part)


def tells_a_fault(chunk: object) -> bool:
    """Return whether an object says that something went wrong."""
    return isinstance(chunk, dict) and (bool(chunk.get("error")) or chunk.get("object") == "error")


def shorten(words: str | bytes) -> str:
    """Return the beginning of a provider's words, fit for a log."""
    text = words[: MAX_DETAIL * 4].decode("utf-8", "replace") if isinstance(words, bytes) else words
    return mend(text[:MAX_DETAIL])
