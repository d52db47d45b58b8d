"""Requests of the OpenAI-compatible API as they are read, and what is said in its words."""

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.call import Wanted, read_call, sign
from chat.completions import Heading, Joined, choice_of, error_body, status_of
from tenants.errors import ErrorCode, ProductError

ASKED = {"role": "user", "content": "x"}
HEADING = Heading(message_id="m1", model="sold", created=1, include_usage=True)


def read(**values: Any) -> Wanted:
    body = orjson.dumps({"model": "m", "messages": [ASKED], **values})
    return read_call(body, idempotency_key="", is_retry=False)


def scope_of(**values: Any) -> str:
    with pytest.raises(ProductError) as refused:
        read(**values)
    assert refused.value.code is ErrorCode.INVALID
    return refused.value.scope


def test_what_is_understood_what_is_passed_on_and_what_is_ignored() -> None:
    plain = read(user="u", store=True, metadata={"a": "b"}, service_tier="auto", n=1, seed=None)
    assert (plain.model, plain.stream, plain.include_usage) == ("m", False, False)
    assert (plain.call.messages, plain.call.extra, plain.call.max_tokens) == ([ASKED], {}, None)
    passed = {"temperature": 0, "top_p": 1, "stop": "x", "seed": -3, "tools": [{"type": "function"}]}
    full = read(**passed, stream=True, stream_options={"include_usage": True}, max_tokens=7)
    assert (full.stream, full.include_usage) == (True, True)
    assert (full.call.extra, full.call.max_tokens) == (passed, 7)
    assert read(max_completion_tokens=8).call.max_tokens == 8


@pytest.mark.parametrize(
    ("values", "scope"),
    [
        ({"model": None}, "model"),
        ({"model": 3}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages.0.role"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role"),
        ({"messages": [ASKED, {"role": "user"}]}, "messages.1.content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
        ({"messages": [{**ASKED, "tool_calls": []}]}, "messages.0.tool_calls"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages.0.content.0.type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc"}}]}]},
            "messages.0.content.0.image_url",
        ),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        (
            {"stream": True, "stream_options": {"include_usage": 1}},
            "include_usage",
        ),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"tools": [{}]}, "tools"),
        ({"n": 2}, "n"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"no_such_thing": 1}, "no_such_thing"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], scope: str) -> None:
    assert scope_of(**values) == scope


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"model":"\\ud800"}'])
def test_what_is_no_object_of_json_is_refused(body: bytes) -> None:
    with pytest.raises(ProductError) as refused:
        read_call(body, idempotency_key="", is_retry=False)
    assert (refused.value.code, refused.value.scope) == (ErrorCode.INVALID, "body")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_json_raises_anything_else(value: Any) -> None:
    for values in ({"messages": value}, {"messages": [value]}, {"messages": [ASKED], "tools": value, "stop": value}):
        try:
            body = orjson.dumps({"model": "m", **values})
        except TypeError:  # beyond 64 bits, which orjson does not write
            continue
        with contextlib.suppress(ProductError):
            read_call(body, idempotency_key="", is_retry=False)


def test_equal_requests_have_equal_digests_by_one_key_only(settings: Any) -> None:
    first, second, other = read(), read(), read(seed=1)
    assert first.call.digest == second.call.digest != other.call.digest
    signed = sign(first.call.digest, key_id=1)
    assert signed == sign(second.call.digest, key_id=1) != sign(first.call.digest, key_id=2)
    settings.SECRET_KEY = "another"
    assert sign(first.call.digest, key_id=1) != signed


def event(**chunk: Any) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def test_a_chunk_says_nothing_of_its_provider() -> None:
    raw = event(
        id="chatcmpl-9",
        model="upstream-model",
        system_fingerprint="fp_1",
        provider="somebody",
        choices=[{"index": 0, "delta": {"content": "hé"}, "finish_reason": None, "content_filter_results": {"a": 1}}],
    )
    choice = choice_of(raw, "hé")
    assert choice == {"index": 0, "delta": {"content": "hé"}, "finish_reason": None}
    assert orjson.loads(HEADING.chunk(choice).removeprefix(b"data: ")) == {
        "id": "m1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "sold",
        "choices": [choice],
        "usage": None,
    }


@pytest.mark.parametrize(
    ("raw", "text", "delta"),
    [
        (b"", "", None),
        (b"", "\ufffd", {"content": "\ufffd"}),
        (b": comment\n\n", "", None),
        (event(choices=[], usage={"prompt_tokens": 1}), "", None),
        (b'event: x\r\ndata: {"choices":\r\ndata: [{"delta":{"content":"a"}}]}\r\n\r\n', "a", {"content": "a"}),
        # Half of a pair waits for its other half, which comes with the next chunk.
        (b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n', "", {"content": ""}),
        (b'data: {"choices":[{"delta":{"content":"\\ude00"}}]}\n\n', "😀", {"content": "😀"}),
        (b'data: {"choices":["what"]}\n\n', "", None),
    ],
)
def test_events_of_every_form_are_read(raw: bytes, text: str, delta: dict[str, str] | None) -> None:
    choice = choice_of(raw, text)
    assert (choice and choice["delta"]) == delta


def joined(*deltas: dict[str, Any]) -> dict[str, Any]:
    whole = Joined()
    for delta in deltas:
        whole.add({"delta": delta})
    choice = whole.choice("stop")
    return dict(choice["message"])


def test_pieces_become_one_message() -> None:
    assert joined({"role": "assistant", "content": ""}, {"content": "a"}, {"content": None}, {"content": "b"}) == {
        "role": "assistant",
        "content": "ab",
        "refusal": None,
    }
    assert joined({"reasoning_content": "hm"}, {"reasoning": "m"}, {"content": "a"})["reasoning_content"] == "hmm"
    assert joined({"refusal": "no"}) == {"role": "assistant", "content": None, "refusal": "no"}
    assert joined({"function_call": {"name": "f", "arguments": "{"}}, {"function_call": {"arguments": "}"}})[
        "function_call"
    ] == {"name": "f", "arguments": "{}"}


def test_calls_of_tools_are_put_together_with_an_index_and_without() -> None:
    with_index = joined(
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{1"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]},
    )
    without = joined(
        {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{1}"}}]},
        {"tool_calls": [{"id": "b", "function": {"name": "g", "arguments": "{"}}]},
        {"tool_calls": [{"function": {"arguments": "}"}}]},
    )
    wanted = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{1}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert with_index["tool_calls"] == without["tool_calls"] == wanted
    assert with_index["content"] is None


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_has_a_status_and_a_word_of_openais(code: ErrorCode) -> None:
    failure = ProductError(code, "said", type="some_type", scope="somewhere", action="act", used=1)
    body = error_body(failure, "r1")["error"]
    assert (body["message"], body["code"], body["reason"]) == ("said", int(code), "some_type")
    assert (body["type"], body["request_id"], body["used"]) == (status_of(failure)[1], "r1", 1)
    assert 400 <= status_of(failure)[0] < 600
