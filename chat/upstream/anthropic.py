"""Anthropic's dialect, the messages API: OpenAI's messages go in, its events come out as ours and as OpenAI's chunks.

    body_of              OpenAI's messages, tools and parameters -> a request's body
    AnthropicParser      the answer's events -> Delta, Usage, Done, Failed
    AnthropicUpstream    both on one target

Source: https://docs.anthropic.com/en/api/messages and …/en/docs/build-with-claude/streaming
"""

import re
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, Final

import orjson

from chat.events import Delta, Done, Event, Failed, FailureKind, Usage
from chat.upstream import client
from chat.upstream.base import ChatRequest, Rest, UpstreamTarget, no_rest
from chat.upstream.failures import refusal, shorten
from chat.upstream.parameters import apply_rules
from chat.upstream.sse import (
    MAX_EVENT,
    EventSplitter,
    EventTooLongError,
    as_count,
    as_dict,
    as_text,
    fields_of,
    load_json,
    mend,
)

VERSION: Final = "2023-06-01"  # the `anthropic-version` where an account names none

_FINISH_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

# --- the request ---

_SAME: Final = ("temperature", "top_p", "top_k", "thinking", "metadata")
_DATA_URL: Final = re.compile(r"data:(image/[\w.+-]+);base64,(.+)", re.DOTALL)


def body_of(request: ChatRequest, model: str) -> dict[str, Any]:
    """Return the request's body. Of OpenAI's parameters those go along that there is a word for here."""
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_tokens,
        "messages": _messages(request.messages),
        "stream": True,
    }
    if system := "\n\n".join(_text_of(message) for message in request.messages if _is_system(message)):
        body["system"] = system
    body |= {name: request.extra[name] for name in _SAME if request.extra.get(name) is not None}
    if isinstance(temperature := body.get("temperature"), int | float):
        body["temperature"] = min(temperature, 1)  # OpenAI's scale goes on to 2
    if stop := request.extra.get("stop"):
        body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    choice = request.extra.get("tool_choice")
    if choice != "none" and (tools := [_tool(as_dict(tool)) for tool in request.extra.get("tools") or ()]):
        body["tools"] = tools
        body |= _tool_choice(choice)
    return body


def _is_system(message: Mapping[str, Any]) -> bool:
    return message.get("role") in {"system", "developer"}


def _text_of(message: Mapping[str, Any]) -> str:
    return "".join(as_text(block.get("text")) for block in _content(message.get("content")))


def _messages(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the turns; neighbours of one role are one turn, as the results of several tools have to be."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if _is_system(message) or not (blocks := _blocks(message)):
            continue
        role = "assistant" if message.get("role") == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    blocks = _content(message.get("content"))
    if message.get("role") == "tool":
        return [{"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": blocks}]
    for call in message.get("tool_calls") or ():
        function = as_dict(as_dict(call).get("function"))
        asked = load_json(as_text(function.get("arguments")).encode())
        blocks.append({"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": as_dict(asked)})
    return blocks


def _content(content: object) -> list[dict[str, Any]]:
    """Return a message's content as blocks; empty texts are left out, as they are refused."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    parts = [as_dict(part) for part in content] if isinstance(content, list) else []
    return [block for part in parts if (block := _block(part))]


def _block(part: dict[str, Any]) -> dict[str, Any] | None:
    if part.get("type") == "image_url":
        url = as_text(as_dict(part.get("image_url")).get("url"))
        if data := _DATA_URL.fullmatch(url):
            return {"type": "image", "source": {"type": "base64", "media_type": data[1], "data": data[2]}}
        return {"type": "image", "source": {"type": "url", "url": url}}
    return {"type": "text", "text": text} if (text := as_text(part.get("text"))) else None


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = as_dict(tool.get("function"))
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    known = {"name": function.get("name"), "description": function.get("description"), "input_schema": schema}
    return {name: value for name, value in known.items() if value is not None}


def _tool_choice(choice: object) -> dict[str, Any]:
    if isinstance(choice, dict):
        return {"tool_choice": {"type": "tool", "name": as_dict(choice.get("function")).get("name")}}
    return {"tool_choice": {"type": "any"}} if choice == "required" else {}


# --- the answer ---


class AnthropicParser:
    """Turns the bytes of one answer's body into events. After a `Done` or `Failed` it says nothing more."""

    def __init__(self) -> None:
        self._splitter = EventSplitter()
        self._ended = False
        self._understood = False
        self._has_output = False
        self._finish_reason = ""
        self._counts: dict[str, int] = {}
        self._tools: dict[Any, int] = {}  # the number of a tool's call, by the number of its block
        self._head = {"id": "", "object": "chat.completion.chunk", "created": int(time.time()), "model": ""}

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
        """Return the last events: the body is over, by itself or for `reason`. One with a stop reason is whole."""
        events: list[Event] = []
        rest = self._splitter.rest()
        if rest and load_json(fields_of(rest)[1]) is not None:
            self._read_event(rest, events)
        if self._finish_reason:
            self._finish(events)
        elif reason is None and not self._understood:
            self._end(events, Failed(FailureKind.PROTOCOL, "no event in the body: " + shorten(rest)))
        else:
            self._end(events, reason or Failed(FailureKind.NETWORK, "broken off: no stop reason"))
        return events

    def _read_event(self, raw: bytes, events: list[Event]) -> None:
        name, data = fields_of(raw)
        if self._ended or not data:
            return
        event = load_json(data)
        if not isinstance(event, dict):
            self._end(events, Failed(FailureKind.PROTOCOL, "not an event: " + shorten(data)))
            return
        match as_text(event.get("type")) or name.decode("utf-8", "replace"):
            case "message_start":
                self._start(as_dict(event.get("message")), events)
            case "content_block_start":
                self._start_block(event.get("index"), as_dict(event.get("content_block")), events)
            case "content_block_delta":
                self._read_delta(event.get("index"), as_dict(event.get("delta")), events)
            case "message_delta":
                self._read_message_delta(event, events)
            case "message_stop":
                self._finish(events)
            case "error":
                self._end(events, refusal(0, data))

    def _start(self, message: dict[str, Any], events: list[Event]) -> None:
        self._understood = True
        self._head["id"], self._head["model"] = as_text(message.get("id")), as_text(message.get("model"))
        self._count(message)
        events.append(Delta("", self._chunk({"role": "assistant", "content": ""})))

    def _start_block(self, index: object, block: dict[str, Any], events: list[Event]) -> None:
        if block.get("type") == "tool_use":
            number = self._tools[index] = len(self._tools)
            name = mend(as_text(block.get("name")))
            function = {"name": name, "arguments": ""}
            call = {"index": number, "id": block.get("id"), "type": "function", "function": function}
            self._append({"tool_calls": [call]}, events, called=name or "tool")
        elif text := mend(as_text(block.get("text"))):
            self._append({"content": text}, events, text=text)

    def _read_delta(self, index: object, delta: dict[str, Any], events: list[Event]) -> None:
        match delta.get("type"):
            case "text_delta" if text := mend(as_text(delta.get("text"))):
                self._append({"content": text}, events, text=text)
            case "thinking_delta" if thought := mend(as_text(delta.get("thinking"))):
                self._append({"reasoning_content": thought}, events, thought=thought)
            case "input_json_delta" if part := mend(as_text(delta.get("partial_json"))):
                call = {"index": self._tools.get(index, 0), "function": {"arguments": part}}
                self._append({"tool_calls": [call]}, events, called=part)

    def _read_message_delta(self, event: dict[str, Any], events: list[Event]) -> None:
        if reason := as_text(as_dict(event.get("delta")).get("stop_reason")):
            self._finish_reason = _FINISH_REASONS.get(reason, reason)
            events.append(Delta("", self._chunk({}, self._finish_reason)))
        if (usage := self._count(event)) is not None:
            events.append(usage)

    def _append(
        self, delta: dict[str, Any], events: list[Event], *, text: str = "", thought: str = "", called: str = ""
    ) -> None:
        self._has_output = True
        events.append(Delta(text, self._chunk(delta), output=True, hidden=thought or called, thought=thought))

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return b"data: " + orjson.dumps({**self._head, "choices": [choice]}) + b"\n\n"

    def _count(self, said: dict[str, Any]) -> Usage | None:
        """Note what an event says was used; return the whole once it is known: the counts grow over the events."""
        usage = as_dict(said.get("usage"))
        self._counts |= {name: count for name, value in usage.items() if (count := as_count(value)) is not None}
        if "input_tokens" not in self._counts or "output_tokens" not in self._counts:
            return None
        cached = self._counts.get("cache_read_input_tokens", 0)
        # Here `input_tokens` are those beside the cache.
        prompt = self._counts["input_tokens"] + cached + self._counts.get("cache_creation_input_tokens", 0)
        return Usage(prompt=prompt, cached=cached, completion=self._counts["output_tokens"])

    def _finish(self, events: list[Event]) -> None:
        if self._has_output:
            self._end(events, Done(self._finish_reason or "stop"))
        elif self._finish_reason == "content_filter":
            self._end(events, Failed(FailureKind.CONTENT, "refused without output"))
        else:
            self._end(events, Failed(FailureKind.EMPTY, f"finished without output: {shorten(self._finish_reason)}"))

    def _end(self, events: list[Event], last: Done | Failed) -> None:
        if not self._ended:
            self._ended = True
            events.append(last)


# --- the upstream ---


class AnthropicUpstream:
    """One target that speaks Anthropic's messages API. Holds no connection; make one for each request."""

    def __init__(self, target: UpstreamTarget) -> None:
        self._target = target

    def stream(self, request: ChatRequest, rest: Rest = no_rest) -> AsyncGenerator[list[Event], None]:
        """Ask, and yield batches of events (see `Upstream`)."""
        return client.stream(self._target, self._call(request), AnthropicParser(), refusal, rest)

    def _call(self, request: ChatRequest) -> client.Call:
        body = apply_rules(self._target.rules, body_of(request, self._target.model))
        return client.Call(
            url=self._target.base_url.rstrip("/") + "/messages",
            headers={
                "Content-Type": "application/json",
                "Accept": "text/event-stream",
                "anthropic-version": self._target.api_version or VERSION,
                **({"x-api-key": self._target.api_key} if self._target.api_key else {}),
            },
            body=orjson.dumps(body),
        )
