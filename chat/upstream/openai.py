"""OpenAI's dialect: the request's body, and the answer's server-sent events made into ours.

    EventSplitter   bytes as the network cut them -> whole server-sent events
    AnswerParser    those -> Delta, Usage, Done, Failed
    refusal         an HTTP refusal or an object that says what went wrong -> Failed
    OpenAIUpstream  all of it on one target

The result is the same however the network cuts the bytes. Providers differ in the small things: this reads every
variant that tests/recordings hold, and what it cannot read is a failure of the upstream, never an exception.
"""

import json
import re
from collections.abc import AsyncGenerator, Iterable
from http import HTTPStatus
from typing import Any, Final

import orjson

from chat.events import Delta, Done, Event, Failed, FailureKind, Usage
from chat.upstream import client
from chat.upstream.base import ChatRequest, UpstreamTarget

MAX_EVENT: Final = 1024 * 1024  # bytes; a provider's event has a few hundred
MAX_DETAIL: Final = 500  # characters of a provider's message that a log keeps
MAX_TOKENS: Final = 100_000_000  # docs/money.md's bound on a count; beyond it the upstream talks nonsense

_BOM: Final = b"\xef\xbb\xbf"
# Every pair of line ends, but for those whose end only the next byte would tell: an event is not kept waiting for it.
_BLANK_LINE: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class EventTooLongError(ValueError):
    """An event is longer than `MAX_EVENT`."""


class EventSplitter:
    """Cuts a stream of bytes into server-sent events, each with its blank line, wherever the network cut it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at_start = True

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Yield the events that `data` completes. Raises EventTooLongError after those before the long one."""
        self._buffer += data
        if self._at_start and not self._skip_byte_order_mark():
            return
        start, seen = 0, max(0, len(self._buffer) - len(data) - 3)
        try:
            while start < len(self._buffer) and (blank := _BLANK_LINE.search(self._buffer, max(start, seen))):
                end = blank.end()
                _check_length(end - start)
                event, start = bytes(self._buffer[start:end]), end
                yield event
            _check_length(len(self._buffer) - start)
        finally:
            del self._buffer[:start]

    def rest(self) -> bytes:
        """Return what came after the last blank line: an event without one, if the body has ended."""
        return bytes(self._buffer)

    def _skip_byte_order_mark(self) -> bool:
        """Return False while the first bytes may still become a byte order mark."""
        if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
            return False
        if self._buffer.startswith(_BOM):
            del self._buffer[: len(_BOM)]
        self._at_start = False
        return True


def _check_length(length: int) -> None:
    if length > MAX_EVENT:
        raise EventTooLongError


class AnswerParser:
    """Turns the bytes of one answer's body into events. After a `Done` or `Failed` it says nothing more."""

    def __init__(self) -> None:
        self._splitter = EventSplitter()
        self._ended = False
        self._has_output = False
        self._understood = False
        self._finish_reason = ""
        self._usage: Usage | None = None
        self._half_pair = ""  # a high surrogate whose low one comes with the next delta

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes; often none."""
        events: list[Event] = []
        try:
            for raw in self._splitter.feed(data):
                self._read_event(raw, events)
        except EventTooLongError:
            self._end(events, Failed(FailureKind.PROTOCOL, f"an event of more than {MAX_EVENT} bytes"))
        return events

    def end(self, reason: Failed | None = None) -> list[Event]:
        """Return the last events: the body is over, by itself or for `reason`.

        Some providers leave out the last blank line, or the closing `[DONE]`: an answer with a finish reason is whole.
        """
        events: list[Event] = []
        if rest := self._splitter.rest():
            self._read_event(rest, events, is_cut=True)
        if self._finish_reason:
            self._finish(events)
        elif reason is None and not self._understood:
            self._end(events, Failed(FailureKind.PROTOCOL, "no event in the body: " + _shorten(rest)))
        else:
            self._end(events, reason or Failed(FailureKind.NETWORK, "broken off: no finish reason, no [DONE]"))
        return events

    def _read_event(self, raw: bytes, events: list[Event], *, is_cut: bool = False) -> None:
        if self._ended:
            return
        name, data = _fields(raw)
        if data == b"[DONE]":
            self._finish(events)
        elif data or raw.lstrip().startswith(b"{"):
            self._read_data(raw, name, data or raw, events, is_cut=is_cut)

    def _read_data(self, raw: bytes, name: bytes, data: bytes, events: list[Event], *, is_cut: bool) -> None:
        chunk = _load(data)
        if name == b"error" or _tells_a_fault(chunk):
            self._end(events, refusal(0, data))
        elif not isinstance(chunk, dict):
            if not is_cut:
                self._end(events, Failed(FailureKind.PROTOCOL, "not a chunk: " + _shorten(data)))
        elif "choices" in chunk or "usage" in chunk:
            self._understood = True
            self._read_chunk(raw + _missing_end(raw) if is_cut else raw, chunk, events)

    def _read_chunk(self, raw: bytes, chunk: dict[str, Any], events: list[Event]) -> None:
        choice = _first(chunk.get("choices"))
        usage = _usage(chunk.get("usage") or (choice or {}).get("usage"))  # Moonshot's is inside the choice
        if choice is not None or usage is None:
            events.append(self._delta(raw, _dict(choice.get("delta")) if choice else {}))
        if choice and isinstance(reason := choice.get("finish_reason"), str):
            self._finish_reason = reason or self._finish_reason
        if usage is not None and usage != self._usage:
            self._usage = usage
            events.append(usage)

    def _delta(self, raw: bytes, delta: dict[str, Any]) -> Delta:
        shown = _text(delta.get("content")) + _text(delta.get("refusal"))
        hidden = _text(delta.get("reasoning_content")) or _text(delta.get("reasoning"))
        if "tool_calls" in delta or "function_call" in delta:
            hidden += _calls(delta.get("tool_calls")) + _calls([{"function": delta.get("function_call")}])
        output = bool(shown or hidden)
        self._has_output |= output
        return Delta(self._whole_characters(shown), raw, output, _mend(hidden))

    def _whole_characters(self, text: str) -> str:
        """Return `text` behind the half pair kept from before, and keep a half pair at its end."""
        if not text:
            return ""
        text = self._half_pair + text
        self._half_pair = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
        return _mend(text[:-1] if self._half_pair else text)

    def _finish(self, events: list[Event]) -> None:
        if self._has_output:
            self._end(events, Done(self._finish_reason or "stop"))
        elif self._finish_reason == "content_filter":
            self._end(events, Failed(FailureKind.CONTENT, "finished by content_filter without output"))
        else:
            self._end(events, Failed(FailureKind.EMPTY, f"finished without output: {_shorten(self._finish_reason)}"))

    def _end(self, events: list[Event], last: Done | Failed) -> None:
        if self._ended:
            return
        if self._half_pair:
            self._half_pair = ""
            events.append(Delta(text="\ufffd", raw=b""))
        self._ended = True
        events.append(last)


def _fields(raw: bytes) -> tuple[bytes, bytes]:
    """Return an event's name and its data, as the standard of server-sent events reads them."""
    if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 and b"\r" not in raw:
        return b"", raw[6:-2]  # the form that nearly every event has
    name, data = b"", []
    for line in _LINE_END.split(raw):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return name, b"\n".join(data).strip()


def _missing_end(raw: bytes) -> bytes:
    return b"\n" if raw.endswith((b"\n", b"\r")) else b"\n\n"


def _load(data: bytes) -> Any:
    """Return what the JSON says, None if it is none. json reads what orjson refuses: lone surrogates, broken UTF-8."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            return json.loads(data.decode("utf-8", "replace"), strict=False)
        except (ValueError, RecursionError):
            return None


def _mend(text: str) -> str:
    """Return `text` without what PostgreSQL and UTF-8 refuse: halves are joined, lone ones and NUL become U+FFFD."""
    if not text.isascii() and _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "\ufffd")


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _first(choices: object) -> dict[str, Any] | None:
    return _dict(choices[0]) if isinstance(choices, list) and choices else None


def _calls(calls: object) -> str:
    """Return the names and arguments of tool calls, which a provider bills as output."""
    functions = [_dict(_dict(call).get("function")) for call in calls] if isinstance(calls, list) else []
    return "".join(_text(function.get("name")) + _text(function.get("arguments")) for function in functions)


# --- usage ---


def _usage(value: object) -> Usage | None:
    """Return the counts, or None if they are missing or impossible: then the meter's estimate holds."""
    if value is None:
        return None
    counts = _dict(value)
    prompt, completion = _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    cached = (
        _count(_dict(counts.get("prompt_tokens_details")).get("cached_tokens"))
        or _count(counts.get("prompt_cache_hit_tokens"))  # DeepSeek's name for it
        or _count(counts.get("cached_tokens"))  # Moonshot's
        or 0
    )
    return Usage(prompt=prompt, cached=min(cached, prompt), completion=completion)


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS
    return value if is_count and isinstance(value, int) else None


# --- refusals ---

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
# What the body says outweighs the status. From OpenAI, Azure, DeepSeek, DashScope, Moonshot, Zhipu, llama.cpp.
_KIND_OF_WORDS: Final = (
    (
        FailureKind.CONTEXT_TOO_LONG,
        re.compile(r"context_length|context.?size|context length|context window|prompt is too long|input length"),
    ),
    (
        FailureKind.CONTENT,
        re.compile(
            r"content.?filter|content_policy|data.?inspection|content exists risk|moderation"
            r"|sensitive (content|words)|敏感"
        ),
    ),
    (
        FailureKind.QUOTA,
        re.compile(r"insufficient.?(quota|balance|credit)|exceeded.current.quota|billing|arrearage|余额"),
    ),
    (FailureKind.AUTH, re.compile(r"invalid.?api.?key|incorrect api key|authentication|unauthori[sz]ed")),
    (FailureKind.RATE, re.compile(r"rate.?limit|too many requests")),
)
_FAULTS: Final = range(400, 600)


def refusal(status: int, body: bytes) -> Failed:
    """Return the failure that a refusal means: its body, and its HTTP status, 0 for an event inside a stream.

    An object that tells a fault under status 200 is read as such an event would be.
    """
    said = _load(body)
    said = said[0] if isinstance(said, list) and said else said  # Google's refusals are lists
    fault = _dict(said).get("error") or said
    words = fault if isinstance(fault, str) else _words(_dict(fault)) or body.decode("utf-8", "replace")
    means = _status_within(fault) if status == 0 or (status == HTTPStatus.OK and _tells_a_fault(said)) else status
    return Failed(_kind(means, words), _shorten(words), status)


def _status_within(fault: object) -> int:
    """Return the HTTP status that some providers write into an event inside a stream; else 500: theirs is the fault."""
    code = str(_dict(fault).get("code"))
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


def _tells_a_fault(chunk: object) -> bool:
    return isinstance(chunk, dict) and (bool(chunk.get("error")) or chunk.get("object") == "error")


def _shorten(words: str | bytes) -> str:
    text = words[: MAX_DETAIL * 4].decode("utf-8", "replace") if isinstance(words, bytes) else words
    return _mend(text[:MAX_DETAIL])


# --- the upstream ---


class OpenAIUpstream:
    """One target that speaks OpenAI's chat completions. Holds no connection; make one for each request."""

    def __init__(self, target: UpstreamTarget) -> None:
        self._target = target

    def stream(self, request: ChatRequest) -> AsyncGenerator[list[Event], None]:
        """Ask, and yield batches of events (see `Upstream`)."""
        return client.stream(self._target, self._call(request), AnswerParser(), refusal)

    def _call(self, request: ChatRequest) -> client.Call:
        body = {
            **request.extra,
            "model": self._target.model,
            "messages": request.messages,
            "max_tokens": request.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if self._target.api_key:
            headers["Authorization"] = f"Bearer {self._target.api_key}"
        url = self._target.base_url.rstrip("/") + "/chat/completions"
        return client.Call(url=url, headers=headers, body=orjson.dumps(body))
