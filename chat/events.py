"""The words inside the pipe: what an upstream's stream is made of, whatever the provider's dialect.

    Started     the upstream answered with a stream; nothing of the answer yet
    Delta       one event of the answer
    Usage       what the upstream says it counted; cumulative, so a later one replaces an earlier one
    Done        the answer is whole
    Failed      the answer broke, or never began

One of the last two ends every stream, and nothing follows it.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class FailureKind(StrEnum):
    """Why an upstream failed. The pool and the breaker act on it; a person never sees it."""

    AUTH = "auth"  # the key is wrong, expired or not allowed to use this model
    QUOTA = "quota"  # the provider's account is out of money
    RATE = "rate"  # too many requests or tokens per minute: other keys may do
    CONTEXT_TOO_LONG = "context_too_long"  # the prompt does not fit the model's window
    CONTENT = "content"  # the provider's own moderation refused
    REQUEST = "request"  # the provider refuses the request for another reason: model name, parameter
    OVERLOAD = "overload"  # 5xx: the provider is ill
    NETWORK = "network"  # no connection, or broken off before the end
    TIMEOUT = "timeout"  # a limit of `Timeouts` passed
    PROTOCOL = "protocol"  # what came is not the dialect
    EMPTY = "empty"  # a whole answer without any output
    BUSY = "busy"  # nobody was asked: every account rests, is full, or failed too often


@dataclass(frozen=True, slots=True)
class Started:
    """The upstream accepted the request and streams. `target` is the target's name, for logs and usage records."""

    target: str
    model: str


@dataclass(slots=True)
class Delta:
    """One event of the answer. Not frozen, as making it would cost three times as much, but never changed.

    `text`: what to show and keep; "" for role, reasoning and tool deltas. Never holds NUL or a lone surrogate; a pair
    that the upstream cut in two arrives whole with its second half.
    `raw`: the upstream's SSE event byte for byte, with its blank line, for the H5 page; b"" if it has none of its own.
    `output`: true if the event is output that the provider bills: content, reasoning or a tool call.
    `hidden`: billable text that is not shown (reasoning, names and arguments of tool calls), for the meter.
    `thought`: the reasoning in it alone.
    """

    text: str
    raw: bytes = field(repr=False)
    output: bool = False
    hidden: str = ""
    thought: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts. `cached` is part of `prompt`; `completion` includes reasoning."""

    prompt: int
    cached: int
    completion: int
    source: Literal["upstream", "estimate"] = "upstream"


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is whole. `finish_reason` is the provider's word, such as stop, length or tool_calls."""

    finish_reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer broke. `detail` holds the provider's own words: for logs only, never for a person.

    `status` is the HTTP status of the refusal; 0 if the fault was not one. `retry_after` is the provider's word on when
    to ask again, in seconds; 0 if it gave none.
    """

    kind: FailureKind
    detail: str = field(default="", repr=False)
    status: int = 0
    retry_after: float = 0.0


Event = Started | Delta | Usage | Done | Failed
