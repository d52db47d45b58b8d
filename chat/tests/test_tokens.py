"""Token counts, without a network."""

from hypothesis import given
from hypothesis import strategies as st

from chat.upstream import tokens
from chat.upstream.base import ChatRequest


def test_counts_are_those_of_o200k_base() -> None:
    assert tokens.count("") == 0
    assert tokens.count("hello world") == 2
    assert tokens.count("你好世界") == 2
    assert tokens.count("🧠") == 3


def test_a_special_token_in_a_persons_text_is_plain_text() -> None:
    assert tokens.count("<|endoftext|>") == 7


def test_a_long_text_is_counted_whole() -> None:
    assert tokens.count("你好" * 100_000) == 100_000
    assert tokens.count("a" * 200_000) == 25_000


def test_messages_carry_the_formats_overhead() -> None:
    messages: list[dict[str, str | None]] = [
        {"role": "system", "content": "hello world"},
        {"role": "user", "content": "hello world"},
        {"role": "assistant", "content": None},
    ]

    assert tokens.count_messages(messages) == 2 + 2 + 3 * 4 + 3
    assert tokens.count_messages([]) == 3


def test_parts_of_a_message_are_counted() -> None:
    plain = [{"role": "user", "content": "hello world"}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "hello world"}]}]

    assert tokens.count_messages(parts) == tokens.count_messages(plain)


@given(st.text(st.characters(codec=None), max_size=50))
def test_no_text_raises_or_has_more_tokens_than_bytes(text: str) -> None:
    assert 0 <= tokens.count(text) <= len(text.encode("utf-8", "surrogatepass"))


def test_images_are_counted_by_number_and_tools_as_what_they_say() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    asked = [{"role": "user", "content": [{"type": "text", "text": "hello world"}, image, image]}]
    assert tokens.count_messages(asked) == tokens.count_messages([{"role": "user", "content": "hello world"}])
    assert tokens.count_images(asked) == 2
    tools = {"tools": [{"type": "function", "function": {"name": "look"}}], "temperature": 1}
    assert tokens.count_extra(tools) == tokens.count('{"tools":[{"type":"function","function":{"name":"look"}}]}')
    assert tokens.count_extra({"temperature": 1}) == 0
    request = ChatRequest(messages=asked, max_tokens=1, extra=tools)
    assert tokens.count_request(request, image_tokens=1000) == (
        tokens.count_messages(asked) + tokens.count_extra(tools) + 2000
    )


def test_calls_of_tools_are_counted() -> None:
    said = {"role": "assistant", "content": None}
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"the sky"}'}}
    assert tokens.count_messages([{**said, "tool_calls": [call]}]) > tokens.count_messages([said]) + 8
