"""The rules of both framings, held against any text and not only against texts that we thought of."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat import frames

PREFIX, SUFFIX = b'success: {"content":"', b'"}\r\n'
# Pieces that meet in the ways that break naive escaping.
PIECES = st.sampled_from(
    [
        *("error", "success", "与", "rror", "uccess", "e", "s", "er", "suc", "é", "😀"),
        *("\\", '"', "\r\n", "0\r\n\r\n", "\0", "\\u00"),
    ]
)
TEXTS = st.one_of(
    st.text(), st.lists(PIECES).map("".join), st.lists(st.one_of(PIECES, st.text(max_size=60))).map("".join)
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)
OBJECTS = st.dictionaries(TEXTS, JSON_VALUES, max_size=5)


def escaped_text(frame: bytes) -> bytes:
    assert frame.startswith(PREFIX)
    assert frame.endswith(SUFFIX)
    return frame[len(PREFIX) : -len(SUFFIX)]


def assert_no_words(data: bytes) -> None:
    assert re.findall(rb"error|success", data) == []


@given(TEXTS)
def test_text_survives_its_frames(text: str) -> None:
    contents = [json.loads(frame.removeprefix(b"success: "))["content"] for frame in frames.text_frames(text)]

    assert "".join(contents) == text


@given(TEXTS)
def test_no_text_can_write_the_words_into_a_frame(text: str) -> None:
    for frame in frames.text_frames(text):
        assert_no_words(escaped_text(frame))


@given(st.one_of(TEXTS, st.text(min_size=400, max_size=2000), st.lists(PIECES, min_size=300).map("".join)))
def test_a_frame_is_short_ascii_without_blanks_and_holds_whole_characters(text: str) -> None:
    for frame in frames.text_frames(text):
        escaped = escaped_text(frame)
        assert 0 < len(escaped) <= frames.MAX_ESCAPED
        assert all(byte < 0x80 for byte in frame)
        assert frame.count(b"\r\n") == 1
        # A pair cut in two would be half a character, which has no UTF-8.
        json.loads(b'"' + escaped + b'"').encode()


@given(st.text(min_size=1, max_size=1000))
def test_a_frame_takes_as_much_as_fits(text: str) -> None:
    frame, rest = frames.take_frame(text)

    if rest:
        longer = json.loads(b'"' + escaped_text(frame) + b'"') + rest[0]
        assert len(frames._escape(longer)) > frames.MAX_ESCAPED  # noqa: SLF001  the measure of the rule


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("error", b"e\\u0072ror"),
        ("success", b"s\\u0075ccess"),
        ("successuccess", b"s\\u0075ccess\\u0075ccess"),
        ("errorerror", b"e\\u0072rore\\u0072ror"),
        ("与rror", b"\\u4e0e\\u0072ror"),
        ("你好", b"\\u4f60\\u597d"),
        ("😀", b"\\ud83d\\ude00"),
        ("Error SUCCESS", b"Error SUCCESS"),
        ("\0\r\n", b"\\u0000\\r\\n"),
    ],
)
def test_escaping_byte_for_byte(text: str, escaped: bytes) -> None:
    assert frames.text_frames(text) == [PREFIX + escaped + SUFFIX]


def test_an_empty_text_has_no_frame() -> None:
    assert frames.text_frames("") == []


def test_480_bytes_fit_one_frame_and_481_do_not() -> None:
    assert [len(escaped_text(frame)) for frame in frames.text_frames("a" * 480)] == [480]
    assert [len(escaped_text(frame)) for frame in frames.text_frames("a" * 481)] == [480, 1]
    # 480 is no multiple of the 12 bytes of a pair less one: the frame stays short of the bound.
    assert [len(escaped_text(frame)) for frame in frames.text_frames("a" + "😀" * 40)] == [1 + 39 * 12, 12]


def test_the_fixed_frames() -> None:
    assert frames.HEARTBEAT == b'success: {"content":""}\r\n'
    assert frames.END == b"0\r\n\r\n"
    assert frames.PING == b": ping\n\n"
    assert frames.DONE == b"data: [DONE]\n\n"


def test_the_first_frame() -> None:
    assert frames.first_frame("m1", "c1") == (b'success: {"content":"","message_id":"m1","conversation_id":"c1"}\r\n')


def test_the_words_stay_out_of_keys_and_values() -> None:
    body = {"code": 500, "msg": "an error, 与rror", "success": ["success", {"error": None}]}
    expected = (
        rb'{"code":500,"msg":"an e\u0072ror, \u4e0e\u0072ror","s\u0075ccess":["s\u0075ccess",{"e\u0072ror":null}]}'
    )

    assert frames.error_frame(body) == b"event: error\ndata: " + expected + b"\r\n"
    assert frames.receipt_frame(body) == b'success: {"content":"","receipt":' + expected + b"}\r\n"
    assert frames.error_event(body) == b"event: error\ndata: " + expected + b"\n\n"
    assert frames.receipt_event(body) == b"event: receipt\ndata: " + expected + b"\n\n"


@given(OBJECTS)
def test_any_object_survives_its_frame(value: dict[str, Any]) -> None:
    error = frames.error_frame(value).removeprefix(b"event: error\ndata: ")
    receipt = frames.receipt_frame(value).removeprefix(b"success: ")

    assert json.loads(error) == value
    assert json.loads(receipt) == {"content": "", "receipt": value}
    for data in (error, receipt):
        assert_no_words(data)
        assert data.endswith(b"}\r\n")
        assert data.count(b"\n") == 1
        assert all(byte < 0x80 for byte in data)


def test_a_lazy_message_goes_in_as_its_text() -> None:
    class Lazy:
        def __str__(self) -> str:
            return "later"

    assert frames.error_frame({"msg": Lazy()}) == b'event: error\ndata: {"msg":"later"}\r\n'


def test_a_replayed_chunk_is_openais() -> None:
    event = frames.chunk_event("你 error", message_id="m1", model="demo", created=1700000000)

    assert json.loads(event.removeprefix(b"data: ")) == {
        "id": "m1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "demo",
        "choices": [{"index": 0, "delta": {"content": "你 error"}, "finish_reason": None}],
    }
    assert event.endswith(b"\n\n")


def test_the_last_replayed_chunk_has_the_reason_and_no_text() -> None:
    event = frames.chunk_event("", message_id="m1", model="demo", created=1, finish_reason="stop")

    assert json.loads(event.removeprefix(b"data: "))["choices"] == [
        {"index": 0, "delta": {}, "finish_reason": "stop"},
    ]
