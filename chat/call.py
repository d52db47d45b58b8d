"""A request of the OpenAI-compatible API as it arrives: OpenAI's JSON, turned into checked values or a refusal.

What is passed upstream, what is understood here, what is ignored and what is refused: docs/openai-api.md has the list.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext_lazy as _

from chat.request import invalid
from chat.turn import Call

MAX_MESSAGES: Final = 2048
MAX_STOPS: Final = 4
MAX_TOOLS: Final = 128
MAX_TOKENS: Final = 10_000_000
MAX_MODEL_CHARACTERS: Final = 64

# OpenAI's newer word for instructions is not known to other providers, and OpenAI takes the older one too.
_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "function",
}
_IMAGE_URL: Final = re.compile(r"(https?://|data:image/[a-z0-9.+-]+;base64,)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a program asks for, and in which form it wants the answer."""

    model: str
    call: Call
    stream: bool
    include_usage: bool
    # "" where the program gives none; else the key of a message that no other call of the user has.
    idempotency_key: str


def read_call(body: bytes, *, idempotency_key: str, is_retry: bool) -> Wanted:
    """Check a request's every parameter; raise ProductError 10001 that names the first bad one.

    Whose key it comes by is not known here: `call.key_id` is 0, and the digests are completed by `sign`.
    """
    values = _object(body)
    unknown = sorted(set(values) - _PASSED.keys() - _READ - _IGNORED)
    if unknown:
        raise invalid(unknown[0], _("This parameter is not known here."))
    stream = _switch(values, "stream")
    messages = [_message(message, f"messages.{place}") for place, message in enumerate(_messages(values))]
    call = Call(
        key_id=0,
        messages=messages,
        extra=_extra(values),
        max_tokens=_longest(values),
        digest=hashlib.sha256(body).hexdigest(),
        is_retry=is_retry,
    )
    _refuse_unsupported(values)
    return Wanted(
        model=_model(values),
        call=call,
        stream=stream,
        include_usage=_include_usage(values, stream=stream),
        idempotency_key=idempotency_key,
    )


def sign(digest: str, *, key_id: int) -> str:
    """Return a digest that is equal for equal requests by one API key, and tells nobody else what was in them."""
    return salted_hmac("chat.call", f"{key_id}:{digest}", algorithm="sha256").hexdigest()


def _object(body: bytes) -> dict[str, Any]:
    try:
        values = orjson.loads(body)
    except ValueError as fault:
        raise invalid("body", _("The request's body is not valid JSON in UTF-8.")) from fault
    if not isinstance(values, dict):
        raise invalid("body", _("The request's body must be a JSON object."))
    # OpenAI takes null for a parameter that is not given.
    return {name: value for name, value in values.items() if value is not None}


def _model(values: Mapping[str, Any]) -> str:
    model = values.get("model")
    if not isinstance(model, str) or not model:
        raise invalid("model", _("Please name a model."))
    # What no slug can be is not asked for: PostgreSQL refuses some characters with an exception.
    return model if len(model) <= MAX_MODEL_CHARACTERS and "\x00" not in model else "?"


def _switch(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name, False)
    if not isinstance(value, bool):
        raise invalid(name, _("This parameter must be true or false."))
    return value


def _include_usage(values: Mapping[str, Any], *, stream: bool) -> bool:
    options = values.get("stream_options")
    if options is None:
        return False
    if not stream or not isinstance(options, dict):
        raise invalid("stream_options", _("This parameter is an object, and only for streams."))
    return _switch(options, "include_usage")


def _longest(values: Mapping[str, Any]) -> int | None:
    given = [name for name in ("max_completion_tokens", "max_tokens") if name in values]
    if len(given) > 1:
        raise invalid("max_tokens", _("Only one of max_tokens and max_completion_tokens may be given."))
    if not given:
        return None
    value = values[given[0]]
    if not _is_integer(value) or not 1 <= value <= MAX_TOKENS:
        raise invalid(given[0], _("This parameter must be a whole number from 1."))
    return int(value)


def _refuse_unsupported(values: Mapping[str, Any]) -> None:
    if values.get("n", 1) != 1:
        raise invalid("n", _("Only one answer can be asked for at a time."))
    if values.get("modalities", ["text"]) != ["text"]:
        raise invalid("modalities", _("Only text can be asked for."))


# --- messages ---


def _messages(values: Mapping[str, Any]) -> list[Any]:
    messages = values.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid("messages", _("This parameter must be a list with at least one message."))
    if len(messages) > MAX_MESSAGES:
        raise invalid("messages", _("There are too many messages."))
    return messages


def _message(message: Any, place: str) -> dict[str, Any]:
    """Return a message as it goes upstream: all of its own fields, and its role in the word that all providers know."""
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise invalid(f"{place}.role", _("The role must be system, developer, user, assistant or tool."))
    role = _ROLES[message["role"]]
    content = message.get("content")
    if isinstance(content, list):
        for number, part in enumerate(content):
            _check_part(part, f"{place}.content.{number}", role)
    elif not isinstance(content, str) and (role != "assistant" or content is not None):
        raise invalid(f"{place}.content", _("The content must be text or a list of parts."))
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise invalid(f"{place}.tool_call_id", _("This parameter must be text."))
    calls = message.get("tool_calls")
    if calls is not None and (role != "assistant" or not _are_objects(calls)):
        raise invalid(f"{place}.tool_calls", _("Tool calls are a list of objects, in messages of the assistant."))
    return {**message, "role": role}


def _check_part(part: Any, place: str, role: str) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in {"text", "refusal"}:
        if not isinstance(part.get(kind), str):
            raise invalid(f"{place}.{kind}", _("This parameter must be text."))
    elif kind == "image_url" and role == "user":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else None
        if not isinstance(url, str) or not _IMAGE_URL.match(url):
            raise invalid(f"{place}.image_url", _("An image is an http(s) address, or a data URL of an image."))
    else:
        raise invalid(f"{place}.type", _("A part of a message is text, or, from users, an image."))


# --- what is passed upstream ---


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _between(least: float, most: float) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most

    return fits


def _is_stop(value: Any) -> bool:
    stops = [value] if isinstance(value, str) else value
    return isinstance(stops, list) and len(stops) <= MAX_STOPS and all(isinstance(stop, str) for stop in stops)


def _are_tools(value: Any) -> bool:
    return _are_objects(value) and len(value) <= MAX_TOOLS and all(isinstance(tool.get("type"), str) for tool in value)


def _is_a(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


# What goes upstream as it came, and what it must be.
_PASSED: Final[dict[str, Callable[[Any], bool]]] = {
    "temperature": _between(0, 2),
    "top_p": _between(0, 1),
    "presence_penalty": _between(-2, 2),
    "frequency_penalty": _between(-2, 2),
    "seed": _is_integer,
    "stop": _is_stop,
    "logit_bias": _is_a(dict),
    "logprobs": _is_a(bool),
    "top_logprobs": _between(0, 20),
    "response_format": _is_a(dict),
    "reasoning_effort": _is_a(str),
    "verbosity": _is_a(str),
    "tools": _are_tools,
    "tool_choice": _is_a(str, dict),
    "parallel_tool_calls": _is_a(bool),
    "functions": _are_objects,
    "function_call": _is_a(str, dict),
}
_READ: Final = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "modalities"}
)
# OpenAI's own bookkeeping, which changes no answer.
_IGNORED: Final = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)


def _extra(values: Mapping[str, Any]) -> dict[str, Any]:
    extra = {name: values[name] for name in _PASSED if name in values}
    for name, value in extra.items():
        if not _PASSED[name](value):
            raise invalid(name, _("This parameter has a wrong type, or is out of its bounds."))
    return extra
