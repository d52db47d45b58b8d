"""Values to bytes in OpenAI's own words: chunks, whole answers, models, refusals and their headers.

Pure functions. An upstream's chunks go on with our id, our name of the model and our count: nothing that names the
provider goes out.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson
from django.utils import timezone

from tenants.errors import ErrorCode, ProductError

PING: Final = b": ping\n\n"
DONE: Final = b"data: [DONE]\n\n"

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
# Python's and Node's libraries ask again by themselves after at most so long.
MOST_PATIENCE: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What every chunk of an answer says of the whole."""

    message_id: str
    model: str
    created: int  # seconds of Unix time
    # Whether the program wants to know the count: then every chunk has a place for it.
    include_usage: bool = False

    def chunk(self, choice: Mapping[str, Any] | None, usage: Mapping[str, Any] | None = None) -> bytes:
        """Return a chunk with that choice; the last one, of the count, has none."""
        value = {
            "id": self.message_id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": [] if choice is None else [choice],
        }
        return b"data: %b\n\n" % dump(value | ({"usage": usage} if self.include_usage else {}))

    def whole(self, joined: "Joined", *, finish_reason: str, usage: Mapping[str, Any]) -> dict[str, Any]:
        """Return a whole answer."""
        return {
            "id": self.message_id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [joined.choice(finish_reason)],
            "usage": usage,
        }


def choice_of(raw: bytes, text: str) -> dict[str, Any] | None:
    """Return what an upstream's event says of the answer; None where it says nothing.

    `text` is what was read from it, in whole characters; of an event that has none of its own it is all there is.
    """
    chunk = _load(_data(raw))
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return {"index": 0, "delta": {"content": text}, "finish_reason": None} if text else None
    said = choices[0]
    delta = dict(said["delta"]) if isinstance(said.get("delta"), dict) else {}
    if isinstance(delta.get("content"), str) and not delta.get("refusal"):
        delta["content"] = text
    choice = {"index": 0, "delta": delta, "finish_reason": said.get("finish_reason") or None}
    return choice | ({"logprobs": said["logprobs"]} if said.get("logprobs") else {})


def usage_of(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """Return a receipt's count: what was charged is what is told."""
    prompt, completion = int(receipt["prompt_tokens"]), int(receipt["completion_tokens"])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": int(receipt["cached_tokens"])},
    }


@dataclass(slots=True)
class Joined:
    """The choices of a stream, put together into one message."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    tool_calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    function_call: dict[str, str] | None = None
    logprobs: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, choice: Mapping[str, Any]) -> None:
        """Add one chunk's choice."""
        delta = choice["delta"]
        for name, parts in (("content", self.content), ("refusal", self.refusal)):
            parts.append(_text(delta.get(name)))
        self.reasoning.append(_text(delta.get("reasoning_content")) or _text(delta.get("reasoning")))
        calls = delta.get("tool_calls")
        for place, call in enumerate(calls if isinstance(calls, list) else []):
            if isinstance(call, dict):
                self._add_call(call, place)
        if isinstance(delta.get("function_call"), dict):
            self.function_call = _joined(self.function_call or {}, delta["function_call"])
        logprobs = choice.get("logprobs")
        for name, values in logprobs.items() if isinstance(logprobs, dict) else ():
            if isinstance(values, list):
                self.logprobs.setdefault(name, []).extend(values)

    def _add_call(self, call: Mapping[str, Any], place: int) -> None:
        """Add a part of a tool call; some providers leave its index out and send each call at once."""
        index = call.get("index")
        if not isinstance(index, int):
            known = [at for at, seen in self.tool_calls.items() if call.get("id") in {None, "", seen["id"]}]
            index = known[-1] if known and not call.get("id") else known[0] if known else len(self.tool_calls) + place
        seen = self.tool_calls.setdefault(index, {"id": "", "type": "function", "function": {}})
        seen["id"] = _text(call.get("id")) or seen["id"]
        if isinstance(call.get("function"), dict):
            seen["function"] = _joined(seen["function"], call["function"])

    def choice(self, finish_reason: str) -> dict[str, Any]:
        """Return the whole choice."""
        content, refusal = "".join(self.content), "".join(self.refusal)
        message: dict[str, Any] = {"role": "assistant", "content": content or None, "refusal": refusal or None}
        if not (self.tool_calls or self.function_call or refusal):
            message["content"] = content
        if reasoning := "".join(self.reasoning):
            message["reasoning_content"] = reasoning
        if self.tool_calls:
            message["tool_calls"] = [self.tool_calls[index] for index in sorted(self.tool_calls)]
        if self.function_call:
            message["function_call"] = self.function_call
        return {"index": 0, "message": message, "logprobs": self.logprobs or None, "finish_reason": finish_reason}


def _joined(seen: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, str]:
    """Return a function's name, which comes once, and its arguments, which come in pieces."""
    return {
        "name": _text(part.get("name")) or _text(seen.get("name")),
        "arguments": _text(seen.get("arguments")) + _text(part.get("arguments")),
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _data(raw: bytes) -> bytes:
    """Return the data of a server-sent event."""
    lines = [line.partition(b":") for line in _LINE_END.split(raw)]
    return b"\n".join(value.removeprefix(b" ") for name, _colon, value in lines if name == b"data")


def _load(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except ValueError:
        try:
            return json.loads(data.decode("utf-8", "replace"), strict=False)
        except (ValueError, RecursionError):
            return None


def dump(value: Any) -> bytes:
    """Return JSON; orjson refuses half characters, which some upstreams send outside of the text."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


# --- models ---


def model_object(slug: str, *, created: int, owner: str) -> dict[str, Any]:
    """Return a model as lists show it."""
    return {"id": slug, "object": "model", "created": created, "owned_by": owner}


# --- refusals ---

# Waiting helps these; of the other refusals with that code it does not, or not soon.
_RATE: Final = frozenset({"too_many_tries", "too_many_answers"})
_MODELS: Final = frozenset({"model_not_found", "model_without_price"})
_WORDS: Final = {
    ErrorCode.LOGIN: (401, "invalid_api_key"),
    ErrorCode.RECHARGE: (429, "insufficient_quota"),
    ErrorCode.QUOTA: (429, "insufficient_quota"),
    ErrorCode.NOT_FOUND: (404, "invalid_request_error"),
    ErrorCode.INVALID: (400, "invalid_request_error"),
    ErrorCode.MODERATED: (400, "content_policy_violation"),
    ErrorCode.UPSTREAM: (502, "server_error"),
    ErrorCode.OTHER: (500, "server_error"),
}


def status_of(failure: ProductError) -> tuple[int, str]:
    """Return the status under which OpenAI would refuse so, and its word for it."""
    status, word = _WORDS[failure.code]
    if failure.code is ErrorCode.QUOTA and failure.type in _RATE:
        return status, "rate_limit_exceeded"
    return status, "model_not_found" if failure.type in _MODELS else word


def error_body(failure: ProductError, request_id: str) -> dict[str, Any]:
    """Return OpenAI's error object, in the active language; our code and what else we know stand beside its words."""
    told = failure.body(request_id)
    return {
        "error": {
            "message": told.pop("msg"),
            "type": status_of(failure)[1],
            "param": told.pop("scope") if failure.code in {ErrorCode.INVALID, ErrorCode.NOT_FOUND} else None,
            "code": told.pop("code"),
            "reason": told.pop("type"),
            **told,
        }
    }


def patience_headers(failure: ProductError, *, is_charged: bool = False) -> dict[str, str]:
    """Return the headers that tell a library whether, and when, to ask again by itself.

    Never where something was charged, or where nothing would be different soon.
    """
    seconds = max(0, math.ceil((failure.reset_at - timezone.now()).total_seconds())) if failure.reset_at else None
    headers = {} if seconds is None else {"retry-after": str(seconds)}
    is_vain = status_of(failure)[1] == "insufficient_quota" or (seconds or 0) > MOST_PATIENCE
    return headers | ({"x-should-retry": "false"} if is_charged or is_vain else {})


def rate_headers(*, used: int, limit: int, reset_at: datetime) -> dict[str, str]:
    """Return OpenAI's headers on how many requests a key has left, and until when."""
    seconds = max(0, math.ceil((reset_at - timezone.now()).total_seconds()))
    return {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": str(max(0, limit - used)),
        "x-ratelimit-reset-requests": f"{seconds}s",
    }
