"""OpenAI's dialect: the request's body, and the answer's server-sent events made into ours.

    AnswerParser    bytes as the network cut them -> Delta, Usage, Done, Failed
    OpenAIUpstream  all of it on one target
    AzureUpstream   the same at Azure: another address, another header

The result is the same however the network cuts the bytes. Providers differ in the small things: this reads every
variant that tests/recordings hold, and what it cannot read is a failure of the upstream, never an exception.
"""

from collections.abc import AsyncGenerator
from typing import Any, Final
from urllib.parse import quote

import orjson

from chat.events import Delta, Done, Event, Failed, FailureKind, Usage
from chat.upstream import client
from chat.upstream.base import ChatRequest, Rest, UpstreamTarget, no_rest
from chat.upstream.failures import refusal, shorten, tells_a_fault
from chat.upstream.parameters import apply_rules
from chat.upstream.sse import (
    MAX_EVENT,
    EventSplitter,
    EventTooLongError,
    as_count,
    as_dict,
    as_text,
    fields_of,
    is_one_event,
    load_json,
    mend,
)

# What a delta of text may say beside its text without saying more.
_PLAIN: Final = frozenset({"content", "role"})
# Finish reasons that are no end of an answer: the provider broke off. DeepSeek's and Zhipu's words.
_BROKEN: Final = frozenset({"insufficient_system_resource", "network_error"})
_FILTERED: Final = frozenset({"content_filter", "sensitive"})  # the latter is Zhipu's


class AnswerParser:
    """Turns the bytes of one answer's body into events. After a `Done` or `Failed` it says nothing more."""

    def __init__(self) -> None:
        self._splitter = EventSplitter()
        self._ended = False
        self._has_output = False
        self._understood = False
        self._finish_reason = ""
        self._usage: Usage | None = None
        self._is_plain = False  # whether the next read may be looked at by itself
        self._half_pair = ""  # a high surrogate whose low one comes with the next delta

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes; often none."""
        if self._is_plain and (delta := self._plain_delta(data)):
            return [delta]
        events: list[Event] = []
        try:
            for raw in self._splitter.feed(data):
                self._read_event(raw, events)
        except EventTooLongError:
            self._end(events, Failed(FailureKind.PROTOCOL, f"an event of more than {MAX_EVENT} bytes"))
        self._is_plain = self._has_output and not self._ended and not self._half_pair and not self._splitter.rest()
        return events

    def _plain_delta(self, data: bytes) -> Delta | None:
        """Return what nearly every read of an answer is, one delta of text and nothing else; None if it is not.

        The same in one function as `feed` finds in ten, at a third of the cost: it is what an answer is made of.
        """
        if not data.startswith(b"data: {") or not is_one_event(data):
            return None
        try:
            chunk = orjson.loads(data[6:-2])
            [choice] = chunk["choices"]
            delta = choice["delta"]
            text = delta["content"]
            is_plain = not (
                choice.get("finish_reason")
                or choice.get("usage")
                or chunk.get("usage")
                or tells_a_fault(chunk)
                or (len(delta) > 1 and any(value for name, value in delta.items() if name not in _PLAIN))
            )
        except (ValueError, LookupError, TypeError, AttributeError):
            return None
        # orjson lets no half of a pair through, so that NUL is all that could be wrong with the text.
        if not is_plain or text.__class__ is not str or not text or "\0" in text or len(data) > MAX_EVENT:
            return None
        return Delta(text, data, output=True)

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
            self._end(events, Failed(FailureKind.PROTOCOL, "no event in the body: " + shorten(rest)))
        else:
            self._end(events, reason or Failed(FailureKind.NETWORK, "broken off: no finish reason, no [DONE]"))
        return events

    def _read_event(self, raw: bytes, events: list[Event], *, is_cut: bool = False) -> None:
        if self._ended:
            return
        name, data = fields_of(raw)
        if data == b"[DONE]":
            self._finish(events)
        elif data or raw.lstrip().startswith(b"{"):
            self._read_data(raw, name, data or raw, events, is_cut=is_cut)

    def _read_data(self, raw: bytes, name: bytes, data: bytes, events: list[Event], *, is_cut: bool) -> None:
        chunk = load_json(data)
        if name == b"error" or tells_a_fault(chunk):
            self._end(events, refusal(0, data))
        elif not isinstance(chunk, dict):
            if not is_cut:
                self._end(events, Failed(FailureKind.PROTOCOL, "not a chunk: " + shorten(data)))
        elif "choices" in chunk or "usage" in chunk:
            self._understood = True
            self._read_chunk(raw + _missing_end(raw) if is_cut else raw, chunk, events)

    def _read_chunk(self, raw: bytes, chunk: dict[str, Any], events: list[Event]) -> None:
        choice = _first(chunk.get("choices"))
        counts = chunk.get("usage") or (choice.get("usage") if choice else None)  # Moonshot's is inside the choice
        usage = None if counts is None else _usage(counts)
        if choice is not None or usage is None:
            events.append(self._delta(raw, as_dict(choice.get("delta")) if choice else {}))
        if choice and isinstance(reason := choice.get("finish_reason"), str):
            self._finish_reason = reason or self._finish_reason
        if usage is not None and usage != self._usage:
            self._usage = usage
            events.append(usage)

    def _delta(self, raw: bytes, delta: dict[str, Any]) -> Delta:
        shown = as_text(delta.get("content"))
        shown += as_text(delta.get("refusal"))
        thought = hidden = mend(as_text(delta.get("reasoning_content")) or as_text(delta.get("reasoning")))
        if "tool_calls" in delta or "function_call" in delta:
            hidden += mend(_calls(delta.get("tool_calls")) + _calls([{"function": delta.get("function_call")}]))
        output = bool(shown or hidden)
        self._has_output |= output
        return Delta(self._whole_characters(shown), raw, output, hidden, thought)

    def _whole_characters(self, text: str) -> str:
        """Return `text` behind the half pair kept from before, and keep a half pair at its end."""
        if not text:
            return ""
        text = self._half_pair + text
        self._half_pair = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
        return mend(text[:-1] if self._half_pair else text)

    def _finish(self, events: list[Event]) -> None:
        if self._finish_reason in _BROKEN:
            self._end(events, Failed(FailureKind.OVERLOAD, f"broken off: {self._finish_reason}"))
        elif self._has_output:
            self._end(events, Done(self._finish_reason or "stop"))
        elif self._finish_reason in _FILTERED:
            self._end(events, Failed(FailureKind.CONTENT, f"finished by {self._finish_reason} without output"))
        else:
            self._end(events, Failed(FailureKind.EMPTY, f"finished without output: {shorten(self._finish_reason)}"))

    def _end(self, events: list[Event], last: Done | Failed) -> None:
        if self._ended:
            return
        if self._half_pair:
            self._half_pair = ""
            events.append(Delta(text="\ufffd", raw=b""))
        self._ended = True
        events.append(last)


def _missing_end(raw: bytes) -> bytes:
    return b"\n" if raw.endswith((b"\n", b"\r")) else b"\n\n"


def _first(choices: object) -> dict[str, Any] | None:
    return as_dict(choices[0]) if isinstance(choices, list) and choices else None


def _calls(calls: object) -> str:
    """Return the names and arguments of tool calls, which a provider bills as output."""
    functions = [as_dict(as_dict(call).get("function")) for call in calls] if isinstance(calls, list) else []
    return "".join(as_text(function.get("name")) + as_text(function.get("arguments")) for function in functions)


# --- usage ---


def _usage(value: object) -> Usage | None:
    """Return the counts, or None if they are missing or impossible: then the meter's estimate holds."""
    counts = as_dict(value)
    prompt, completion = as_count(counts.get("prompt_tokens")), as_count(counts.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    cached = (
        as_count(as_dict(counts.get("prompt_tokens_details")).get("cached_tokens"))
        or as_count(counts.get("prompt_cache_hit_tokens"))  # DeepSeek's name for it
        or as_count(counts.get("cached_tokens"))  # Moonshot's
        or 0
    )
    return Usage(prompt=prompt, cached=min(cached, prompt), completion=completion)


# --- the upstream ---


class OpenAIUpstream:
    """One target that speaks OpenAI's chat completions. Holds no connection; make one for each request."""

    def __init__(self, target: UpstreamTarget) -> None:
        self._target = target

    def stream(self, request: ChatRequest, rest: Rest = no_rest) -> AsyncGenerator[list[Event], None]:
        """Ask, and yield batches of events (see `Upstream`)."""
        return client.stream(self._target, self._call(request), AnswerParser(), refusal, rest)

    def _call(self, request: ChatRequest) -> client.Call:
        body = {
            **request.extra,
            "model": self._target.model,
            "messages": request.messages,
            "max_tokens": request.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return client.Call(
            url=self._url(),
            headers={"Content-Type": "application/json", "Accept": "text/event-stream", **self._key()},
            body=orjson.dumps(apply_rules(self._target.rules, body)),
        )

    def _url(self) -> str:
        return self._target.base_url.rstrip("/") + "/chat/completions"

    def _key(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._target.api_key}"} if self._target.api_key else {}


class AzureUpstream(OpenAIUpstream):
    """A deployment at Azure; the target's model is the deployment's name, its base URL the resource's.

    Source: https://learn.microsoft.com/en-us/azure/ai-services/openai/reference#chat-completions
    """

    def _url(self) -> str:
        deployment = quote(self._target.model, safe="")
        version = quote(self._target.api_version, safe="")
        base = self._target.base_url.rstrip("/")
        return f"{base}/openai/deployments/{deployment}/chat/completions?api-version={version}"

    def _key(self) -> dict[str, str]:
        return {"api-key": self._target.api_key}
