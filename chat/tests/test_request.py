"""Every way a request can be written, and every way it can be wrong."""

import json
from urllib.parse import quote, urlencode
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.request import parse_body, parse_query, read_parameters, wants_mini_program
from tenants.errors import ErrorCode, ProductError

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=----b"


def refusal(**values: object) -> tuple[int, str, str]:
    with pytest.raises(ProductError) as caught:
        read_parameters(values)
    return int(caught.value.code), caught.value.type, caught.value.scope


@pytest.mark.parametrize("text", ["hello", "你好", "a+b & c=d", "😀", "line\r\nline", "与rror"])
def test_the_same_text_by_every_road(text: str) -> None:
    form = urlencode({"message": text}).encode()
    part = f'------b\r\nContent-Disposition: form-data; name="message"\r\n\r\n{text}\r\n------b--\r\n'.encode()
    assert parse_query(form) == {"message": text}
    assert parse_body(form, FORM) == {"message": text}
    assert parse_body(form, f"{FORM}; charset=UTF-8") == {"message": text}
    assert parse_body(part, MULTIPART) == {"message": text}
    assert parse_body(json.dumps({"message": text}).encode(), "application/json") == {"message": text}
    assert parse_body(json.dumps({"message": text}).encode(), "") == {"message": text}


@given(st.text())
def test_any_query_text_survives(text: str) -> None:
    assert parse_query(f"message={quote(text)}".encode()) == {"message": text}


def test_the_last_of_a_repeated_parameter_counts() -> None:
    assert parse_query(b"model=a&model=b") == {"model": "b"}


@pytest.mark.parametrize("query", [b"message=%ff", b"message=\xe4\xbd", b"message=%ed%a0%80"])
def test_a_query_that_is_no_utf8_is_refused(query: bytes) -> None:
    with pytest.raises(ProductError) as caught:
        parse_query(query)
    assert (caught.value.code, caught.value.scope) == (ErrorCode.INVALID, "query")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "application/json"),
        (b"[1]", "application/json"),
        (b'"text"', "application/json"),
        (b"null", "application/json"),
        (b'{"message":"\xff"}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"\xff\xfe", "text/plain"),
        (b"message=%ff", FORM),
        (b"message=\xff", FORM),
        (b"no boundary", "multipart/form-data"),
    ],
)
def test_a_body_that_is_none_is_refused(body: bytes, kind: str) -> None:
    with pytest.raises(ProductError) as caught:
        parse_body(body, kind)
    assert (caught.value.code, caught.value.scope) == (ErrorCode.INVALID, "body")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, False), ("", False), ("0", False), ("1", True), (0, False), (1, True), (False, False), (True, True)],
)
def test_the_framing_switch(value: object, *, expected: bool) -> None:
    assert wants_mini_program({"is_wxapp": value}) is expected


@pytest.mark.parametrize("value", ["2", "true", "yes", " 1", 2, 1.0, [], {}])
def test_a_framing_that_is_neither_is_refused(value: object) -> None:
    with pytest.raises(ProductError) as caught:
        wants_mini_program({"is_wxapp": value})
    assert (caught.value.code, caught.value.scope) == (ErrorCode.INVALID, "is_wxapp")


def test_what_is_absent_or_null_has_its_default() -> None:
    found = read_parameters({"message": "hi", "model": None})
    assert (found.ask.message, found.ask.model, found.ask.role, found.ask.conversation) == ("hi", "", "", "")
    assert (found.resume, found.offset, found.token, found.app_id) == ("", 0, "", "")


@pytest.mark.parametrize("message", [None, "", "  \n\t　"])
def test_an_empty_message_is_refused(message: str | None) -> None:
    assert refusal(message=message) == (10001, "message_missing", "message")


@pytest.mark.parametrize("name", ["message", "conversation", "model", "role", "client_msg_id", "message_id", "appid"])
@pytest.mark.parametrize("value", [1, 1.5, True, [], ["x"], {}, {"a": 1}, "a\x00b", "half \ud83d", "\udc00"])
def test_a_parameter_that_is_no_storable_text_is_refused(name: str, value: object) -> None:
    values = {"message": "hi", name: value}
    assert refusal(**values) == (10001, "invalid_parameter", name)


def test_a_token_of_a_wrong_type_is_refused_without_being_shown() -> None:
    with pytest.raises(ProductError) as caught:
        read_parameters({"message": "hi", "token": ["bny_secret"]})
    assert "bny_secret" not in json.dumps(caught.value.body("r"))


@pytest.mark.parametrize("value", ["-1", "1.5", "x", "١", "1e3", "9999999999", -1, 1.5, True, []])
def test_an_offset_that_is_no_count_is_refused(value: object) -> None:
    assert refusal(message_id="x", offset=value) == (10001, "invalid_parameter", "offset")


@pytest.mark.parametrize(("value", "expected"), [("", 0), ("0", 0), ("12", 12), (12, 12), (None, 0)])
def test_an_offset(value: object, expected: int) -> None:
    assert read_parameters({"message_id": "x", "offset": value}).offset == expected


def test_the_length_limits_are_exact() -> None:
    assert read_parameters({"message": "字" * 100_000}).ask.message == "字" * 100_000
    assert refusal(message="字" * 100_001) == (10001, "invalid_parameter", "message")
    assert read_parameters({"message": "x", "client_msg_id": "k" * 64}).ask.client_msg_id == "k" * 64
    assert refusal(message="x", client_msg_id="k" * 65) == (10001, "invalid_parameter", "client_msg_id")


def test_a_secret_is_not_in_the_repr() -> None:
    assert "bny_secret" not in repr(read_parameters({"message": "hi", "token": "bny_secret"}))


def test_a_question_asked_again_needs_no_text_and_takes_none() -> None:
    asked = read_parameters({"regenerate": "m"}).ask
    assert (asked.regenerate, asked.message, asked.edit, asked.parent) == ("m", "", "", "")
    assert refusal(regenerate="m", message="x") == (10001, "invalid_parameter", "message")


def test_an_edited_question_needs_its_text() -> None:
    assert read_parameters({"edit": "m", "message": "x"}).ask.edit == "m"
    assert refusal(edit="m") == (10001, "message_missing", "message")
    assert refusal(edit="m", attachments=[]) == (10001, "message_missing", "message")


@pytest.mark.parametrize("message", [None, "", "  \n\t　"])
@pytest.mark.parametrize("place", [{}, {"edit": "m"}, {"parent": "m"}])
def test_what_is_attached_needs_no_words(message: str | None, place: dict[str, str]) -> None:
    file = UUID(int=1)
    for named in ([str(file)], str(file)):
        asked = read_parameters({"message": message, "attachments": named, **place}).ask
        assert (asked.message, asked.attachments) == ("", (file,))
    for nothing in (list[str](), "", "[]"):
        assert refusal(message=message, attachments=nothing) == (10001, "message_missing", "message")


@pytest.mark.parametrize(("first", "second"), [("parent", "regenerate"), ("parent", "edit"), ("regenerate", "edit")])
def test_a_question_has_one_place(first: str, second: str) -> None:
    assert refusal(**{first: "a", second: "b", "message": "x"}) == (10001, "invalid_parameter", second)
