"""Anthropic's dialect: what it is asked, what its events mean, over real HTTP and cut anywhere."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.events import Delta, Done, Event, Failed, FailureKind, Started, Usage
from chat.upstream import client
from chat.upstream.anthropic import AnthropicParser, AnthropicUpstream, body_of
from chat.upstream.base import ChatRequest, Timeouts, UpstreamTarget
from chat.upstream.health import Board
from chat.upstream.pool import stream_first_good
from tests.doubles.upstream import RECORDINGS, ScriptedUpstream, load_recording

KEY = "sk-ant-a-key-that-must-not-leak"
FOLDER = RECORDINGS / "anthropic"
REQUEST = ChatRequest(messages=[{"role": "user", "content": "hello"}], max_tokens=100)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as scripted:
        yield scripted
        await client.close()


def target(upstream: ScriptedUpstream, model: str, **limits: float) -> UpstreamTarget:
    return UpstreamTarget(
        name=f"account/{model}",
        base_url=upstream.base_url,
        model=model,
        api_key=KEY,
        dialect="anthropic",
        timeouts=Timeouts(**limits),
    )


async def answer(one: UpstreamTarget, request: ChatRequest = REQUEST) -> list[Event]:
    return [event async for batch in AnthropicUpstream(one).stream(request) for event in batch]


def parse(*parts: bytes) -> list[Event]:
    parser = AnthropicParser()
    events = [event for part in parts for event in parser.feed(part)]
    return events + parser.end()


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def chunks_of(events: list[Event]) -> list[dict[str, Any]]:
    """Return the choices of the OpenAI chunks that the answer was made into."""
    raws = [event.raw for event in events if isinstance(event, Delta)]
    assert all(raw.startswith(b"data: ") and raw.endswith(b"\n\n") for raw in raws)
    return [json.loads(raw[6:])["choices"][0] for raw in raws]


def event_of(**fields: Any) -> bytes:
    return f"event: {fields['type']}\ndata: {json.dumps(fields)}\n\n".encode()


# --- the request ---


async def test_what_the_provider_is_asked(upstream: ScriptedUpstream) -> None:
    request = ChatRequest(
        messages=[
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "你好"},
        ],
        max_tokens=7,
        extra={"temperature": 1.6, "stop": "END", "frequency_penalty": 1, "stream": False, "model": "another"},
    )
    events = await answer(target(upstream, "echo"), request)

    (seen,) = upstream.requests
    assert text_of(events) == "hi你好"
    assert seen.path == "/v1/messages"
    assert seen.body == {
        "model": "echo",
        "system": "be brief",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "你好"}]}],
        "max_tokens": 7,
        "temperature": 1,
        "stop_sequences": ["END"],
        "stream": True,
    }
    assert (seen.headers["x-api-key"], seen.headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert "authorization" not in seen.headers


def test_tools_and_images_are_put_into_its_words() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
    request = ChatRequest(
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what is it?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                ],
            },
            {"role": "assistant", "content": None, "tool_calls": [call, {**call, "id": "2"}]},
            {"role": "tool", "tool_call_id": "1", "content": "rain"},
            {"role": "tool", "tool_call_id": "2", "content": "sun"},
        ],
        max_tokens=7,
        extra={
            "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
            "tool_choice": "required",
        },
    )
    body = body_of(request, "claude")
    asked = {"type": "tool_use", "name": "weather", "input": {"city": "Paris"}}
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is it?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
            ],
        },
        {"role": "assistant", "content": [{**asked, "id": "1"}, {**asked, "id": "2"}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "rain"}]},
                {"type": "tool_result", "tool_use_id": "2", "content": [{"type": "text", "text": "sun"}]},
            ],
        },
    ]
    assert body["tools"] == [{"name": "weather", "input_schema": {"type": "object"}}]
    assert body["tool_choice"] == {"type": "any"}


# --- the answer ---


def test_an_answer_with_a_tool_becomes_openais_chunks() -> None:
    events = parse(load_recording("tools", FOLDER).body)

    assert text_of(events) == "Okay, 查天气:"
    assert "".join(event.hidden for event in events if isinstance(event, Delta)) == 'get_weather{"location": "Paris"}'
    assert [event.thought for event in events if isinstance(event, Delta) and event.thought] == []
    assert events[-2:] == [Usage(prompt=592, cached=100, completion=89), Done("tool_calls")]
    calls = [choice["delta"]["tool_calls"][0] for choice in chunks_of(events) if "tool_calls" in choice["delta"]]
    assert calls == [
        {
            "index": 0,
            "id": "toolu_01T1x1fJ34qAmk2tNTrN7Up6",
            "type": "function",
            "function": {"name": "get_weather", "arguments": ""},
        },
        {"index": 0, "function": {"arguments": '{"location":'}},
        {"index": 0, "function": {"arguments": ' "Paris"}'}},
    ]


def test_thoughts_are_metered_and_are_not_the_answer() -> None:
    events = parse(load_recording("thoughts", FOLDER).body)

    assert chunks_of(events) == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None},
        {"index": 0, "delta": {"reasoning_content": "Let me solve this"}, "finish_reason": None},
        {"index": 0, "delta": {"content": "453"}, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "length"},
    ]
    assert [event.output for event in events if isinstance(event, Delta)] == [False, True, True, False]
    assert [event.hidden for event in events if isinstance(event, Delta)] == ["", "Let me solve this", "", ""]
    assert [event.thought for event in events if isinstance(event, Delta)] == ["", "Let me solve this", "", ""]
    assert events[-2:] == [Usage(prompt=31, cached=0, completion=12), Done("length")]


@pytest.mark.parametrize("name", ["tools", "thoughts"])
async def test_a_recording_means_the_same_however_it_is_cut(upstream: ScriptedUpstream, name: str) -> None:
    expected = parse(load_recording(name, FOLDER).body)
    for model in (name, f"drip:{name}", f"joined:{name}"):
        events = await answer(target(upstream, model))
        assert events[0] == Started(target=f"account/{model}", model=model)
        assert (text_of(events), events[-2:]) == (text_of(expected), expected[-2:])


async def test_a_limit_is_a_length(upstream: ScriptedUpstream) -> None:
    events = await answer(target(upstream, "count:9"), replace(REQUEST, max_tokens=2))

    assert (text_of(events), events[-1]) == ("1 2 ", Done("length"))


@pytest.mark.parametrize(
    ("reason", "last"),
    [
        ("refusal", Failed(FailureKind.CONTENT, "refused without output")),
        ("end_turn", Failed(FailureKind.EMPTY, "finished without output: stop")),
    ],
)
def test_an_end_without_output(reason: str, last: Failed) -> None:
    body = event_of(type="message_start", message={"id": "1", "usage": {"input_tokens": 1, "output_tokens": 0}})
    body += event_of(type="message_delta", delta={"stop_reason": reason}) + event_of(type="message_stop")

    assert parse(body)[-1] == last


def test_usage_is_told_once_it_is_known_and_not_from_the_start() -> None:
    body = event_of(type="message_start", message={"id": "1", "usage": {"input_tokens": 9, "output_tokens": 1}})
    body += event_of(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "a"})
    events = parse(body)

    assert [event for event in events if isinstance(event, Usage)] == []
    assert events[-1] == Failed(FailureKind.NETWORK, "broken off: no stop reason")


def test_an_answer_with_a_stop_reason_is_whole_without_its_last_event() -> None:
    body = load_recording("thoughts", FOLDER).body.split(b"event: message_stop")[0]

    assert parse(body)[-1] == Done("length")


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_no_bytes_raise(parts: list[bytes]) -> None:
    assert isinstance(parse(*parts)[-1], Failed)


# --- faults ---


@pytest.mark.parametrize(
    ("model", "kind", "status"),
    [
        ("http-400", FailureKind.REQUEST, 400),
        ("http-401", FailureKind.AUTH, 401),
        ("http-403", FailureKind.AUTH, 403),
        ("http-404", FailureKind.REQUEST, 404),
        ("http-413", FailureKind.CONTEXT_TOO_LONG, 413),
        ("http-429", FailureKind.RATE, 429),
        ("http-500", FailureKind.OVERLOAD, 500),
        ("http-529", FailureKind.OVERLOAD, 529),
        ("overloaded", FailureKind.OVERLOAD, 0),
        ("garbage", FailureKind.PROTOCOL, 0),
        ("html", FailureKind.PROTOCOL, 200),
        ("half-frame", FailureKind.PROTOCOL, 0),
        ("breaks:before-headers", FailureKind.NETWORK, 0),
        ("breaks:after-headers", FailureKind.NETWORK, 0),
    ],
)
async def test_a_refusal_before_output(upstream: ScriptedUpstream, model: str, kind: FailureKind, status: int) -> None:
    last = (await answer(target(upstream, model)))[-1]

    assert isinstance(last, Failed)
    assert (last.kind, last.status) == (kind, status)
    assert KEY not in last.detail


@pytest.mark.parametrize(
    ("model", "text", "kind"),
    [
        ("overloaded-late", "1 2 ", FailureKind.OVERLOAD),
        ("reset:2", "1 2 ", FailureKind.NETWORK),
        ("stalls:2", "1 2 ", FailureKind.TIMEOUT),
    ],
)
async def test_a_fault_after_output(upstream: ScriptedUpstream, model: str, text: str, kind: FailureKind) -> None:
    events = await answer(target(upstream, model, idle=0.2))

    assert text_of(events) == text
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == kind


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("prompt is too long: 208310 tokens > 200000 maximum", FailureKind.CONTEXT_TOO_LONG),
        ("Your credit balance is too low to access the Anthropic API.", FailureKind.QUOTA),
        ("invalid x-api-key", FailureKind.AUTH),
    ],
)
def test_what_its_words_mean(message: str, kind: FailureKind) -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    last = parse(event_of(**error))[-1]

    assert isinstance(last, Failed)
    assert last.kind == kind


async def test_the_two_dialects_stand_in_for_each_other(upstream: ScriptedUpstream) -> None:
    first = replace(target(upstream, "overloaded"), priority=0)
    second = UpstreamTarget(name="openai", base_url=upstream.base_url, model="count:2", priority=1)
    batches = [batch async for batch in stream_first_good([second, first], REQUEST, board=Board())]

    assert text_of([event for batch in batches for event in batch]) == "1 2 "
    assert [seen.path for seen in upstream.requests] == ["/v1/messages", "/v1/chat/completions"]
