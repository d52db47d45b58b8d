"""OpenAI's dialect, read from recordings however the network cuts them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.events import Delta, Done, Event, Failed, FailureKind, Usage
from chat.upstream.failures import refusal
from chat.upstream.openai import AnswerParser
from chat.upstream.sse import MAX_EVENT, EventSplitter
from tests.doubles.upstream import load_recording, names_of_recordings

FORCED_WORDS = (
    'An error is no success. Error, SUCCESS! success: {"content":"x"}\r\nevent: error\ndata: 与rror 与uccess '
    "errorerror successsuccess 0\r\n\r\n成功 success"
)
BROKEN_OFF = Failed(FailureKind.NETWORK, "broken off: no finish reason, no [DONE]")
# name: text, usage, last event
EXPECTED: dict[str, tuple[str, Usage | None, Done | FailureKind]] = {
    "azure": ("Bonjour", Usage(11, 0, 2), Done("stop")),
    "broken-off": ("Paris is", None, FailureKind.NETWORK),
    "comments": ("Hello there", Usage(9, 0, 5), Done("stop")),
    "content-filter": ("", None, FailureKind.CONTENT),
    "cr": ("你好😀", Usage(9, 0, 3), Done("stop")),
    "crlf": ("你好😀", Usage(9, 0, 3), Done("stop")),
    "emoji": ("Repeat exactly: 🎉👍🚀🌈👨\u200d👩\u200d👧", Usage(60, 24, 29), Done("stop")),
    "empty": ("", Usage(32, 31, 1), FailureKind.EMPTY),
    "error-event": ("The answer is", None, FailureKind.OVERLOAD),
    "error-event-first": ("", None, FailureKind.OVERLOAD),
    "error-event-named": ("", None, FailureKind.RATE),
    "length": ("The tree was a majestic and ancient tree", Usage(38, 24, 8), Done("length")),
    "no-done": ("Paris it is", Usage(14, 0, 3), Done("stop")),
    "no-usage": ("Paris is the capital.", None, Done("stop")),
    "odd-lines": ("one two", None, Done("stop")),
    "plain": ("The capital of France is Paris.", Usage(27, 7, 8), Done("stop")),
    "reasoning": ("9.8 更大。", Usage(30, 16, 12), Done("stop")),
    "reasoning-only": ("", Usage(30, 0, 3), Done("length")),
    "refusal": ("I'm sorry, I can't help.", Usage(12, 0, 8), Done("stop")),
    "split-pairs": ("a😀b\ufffdc\ufffdnul\ufffd!end\ufffd", Usage(9, 0, 6), Done("stop")),
    "too-long": ("", None, FailureKind.CONTEXT_TOO_LONG),
    "tools": ("", Usage(82, 0, 17), Done("tool_calls")),
    "usage-deepseek": ("Hello!", Usage(17, 12, 2), Done("stop")),
    "usage-each": ("One two three", Usage(19, 0, 4), Done("stop")),
    "usage-moonshot": ("你好", Usage(19, 10, 13), Done("stop")),
    "zh": (
        "你好\uff0c世界\uff01今天天气很好。\n\nI'm sorry for any misunderstanding.",  # full-width comma and mark
        Usage(66, 24, 36),
        Done("stop"),
    ),
    "words": (FORCED_WORDS, Usage(35, 24, 93), Done("stop")),
}


def parse(*reads: bytes) -> list[Event]:
    parser = AnswerParser()
    events = [event for data in reads for event in parser.feed(data)]
    return events + parser.end()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_event_by_itself_says_what_it_says_among_others(name: str) -> None:
    """Whoever is read alone may take the short way, and must come to the same."""
    data = load_recording(name).body
    events = list(EventSplitter().feed(data))
    rest = data[len(b"".join(events)) :]
    assert parse(*events, rest) == parse(data)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (b'{"choices":[{"delta":{"content":"x\\u0000y"}}]}', "x\ufffdy"),
        (b'{"choices":[{"delta":{"content":"x","reasoning_content":null}}]}', "x"),
        (b'{"choices":[{"delta":{"content":"x","refusal":"no"}}]}', "xno"),
        (b'{"choices":[{"delta":{"content":7}}]}', ""),
        (b'{"choices":[{"delta":null}]}', ""),
        (b'{"choices":[]}', ""),
        (b'{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}', "a"),
    ],
)
def test_a_later_event_of_any_form_is_read_as_a_first_one(event: bytes, text: str) -> None:
    first = b'data: {"choices":[{"delta":{"content":"1"}}]}\n\n'
    found = parse(first, b"data: " + event + b"\n\n")
    shown = [delta.text for delta in found if isinstance(delta, Delta)]
    assert "".join(shown) == "1" + text


def test_a_fault_after_the_first_output_is_one() -> None:
    first = b'data: {"choices":[{"delta":{"content":"1"}}]}\n\n'
    fault = b'data: {"error":{"message":"overloaded"},"choices":[{"delta":{"content":"2"}}]}\n\n'
    assert isinstance(parse(first, fault)[-1], Failed)


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def hidden_of(events: list[Event]) -> str:
    return "".join(event.hidden for event in events if isinstance(event, Delta))


def raw_of(events: list[Event]) -> bytes:
    return b"".join(event.raw for event in events if isinstance(event, Delta))


def last_usage(events: list[Event]) -> Usage | None:
    return next((event for event in reversed(events) if isinstance(event, Usage)), None)


def event_of(**chunk: Any) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def content(text: str, finish_reason: str | None = None) -> bytes:
    return event_of(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}])


STOP = event_of(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
DONE = b"data: [DONE]\n\n"


def test_every_recording_is_expected_to_mean_something() -> None:
    assert {*EXPECTED, "words-unforced"} == set(names_of_recordings())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_what_a_recording_means(name: str) -> None:
    text, usage, last = EXPECTED[name]

    events = parse(load_recording(name).body)

    assert text_of(events) == text
    assert last_usage(events) == usage
    final = events[-1]
    assert (final.kind if isinstance(final, Failed) else final) == last
    assert sum(isinstance(event, Done | Failed) for event in events) == 1


@given(st.sampled_from(names_of_recordings()), st.data())
def test_the_network_may_cut_anywhere(name: str, data: st.DataObject) -> None:
    body = load_recording(name).body
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=30)))
    reads = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    assert parse(*reads) == parse(body)


@pytest.mark.parametrize("name", names_of_recordings())
def test_the_network_may_cut_everywhere(name: str) -> None:
    body = load_recording(name).body

    assert parse(*(bytes([byte]) for byte in body)) == parse(body)


SNIPPETS = st.sampled_from(
    [
        *(b"\xef\xbb\xbf", b"\n", b"\r", b"\r\n", b"data:", b"data: ", b"{", b"}", b"[DONE]", b": x", b"event: error"),
        *(content("a"), content("\ud83d"), content("\ude00"), STOP, DONE, event_of(error={"message": "no"}), b"\xff"),
    ]
)


@given(st.lists(st.one_of(SNIPPETS, st.binary(max_size=5)), max_size=12), st.data())
def test_no_bytes_raise_and_no_cut_changes_what_they_mean(snippets: list[bytes], data: st.DataObject) -> None:
    body = b"".join(snippets)
    cut = data.draw(st.integers(0, len(body)))
    whole = parse(body)

    assert parse(body[:cut], body[cut:]) == whole
    assert parse(*(bytes([byte]) for byte in body)) == whole
    assert isinstance(whole[-1], Done | Failed)
    text_of(whole).encode()  # raises on a lone surrogate


def test_raw_is_byte_for_byte_without_our_usage_chunk_and_without_done() -> None:
    for name in ("plain", "zh", "words", "tools", "azure"):
        body = load_recording(name).body
        *before, _usage, done, nothing = body.split(b"\n\n")
        assert (done, nothing) == (b"data: [DONE]", b"")
        assert raw_of(parse(body)) == b"".join(event + b"\n\n" for event in before)


def test_usage_on_a_chunk_with_choices_stays_in_raw() -> None:
    body = load_recording("usage-deepseek").body

    assert raw_of(parse(body)) == body.removesuffix(DONE)


def test_comments_stay_out_of_raw() -> None:
    assert b"OPENROUTER" not in raw_of(parse(load_recording("comments").body))


def test_raw_of_an_event_without_its_last_blank_line_is_completed() -> None:
    assert raw_of(parse(content("a") + STOP.rstrip())) == content("a") + STOP
    assert raw_of(parse(content("a") + STOP[:-1])) == content("a") + STOP


def test_hidden_output_is_metered() -> None:
    assert hidden_of(parse(load_recording("tools").body)) == 'get_weather{"city":"Paris"}'
    assert hidden_of(parse(load_recording("reasoning").body)) == "用户想要比较 9.11 和 9.8"
    assert hidden_of(parse(load_recording("comments").body)) == "Thinking hard"


def test_reasoning_is_told_apart_from_calls() -> None:
    both = {"reasoning_content": "A tool", "tool_calls": [{"function": {"name": "weather", "arguments": "{}"}}]}
    [delta] = AnswerParser().feed(f"data: {json.dumps({'choices': [{'delta': both}]})}\n\n".encode())
    assert isinstance(delta, Delta)
    assert (delta.hidden, delta.thought) == ("A toolweather{}", "A tool")
    thoughts = [event.thought for event in parse(load_recording("reasoning").body) if isinstance(event, Delta)]
    assert "".join(thoughts) == "用户想要比较 9.11 和 9.8"


def test_output_begins_with_content_and_not_with_the_role() -> None:
    deltas = [event for event in parse(load_recording("no-usage").body) if isinstance(event, Delta)]

    assert [delta.output for delta in deltas] == [False, True, True, True, True, True, False]


def test_usage_is_the_last_cumulative_value() -> None:
    usages = [event for event in parse(load_recording("usage-each").body) if isinstance(event, Usage)]

    assert usages == [Usage(19, 0, completion) for completion in range(5)]


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 5},
        {"prompt_tokens": 1.5, "completion_tokens": 5},
        {"prompt_tokens": True, "completion_tokens": 5},
        {"prompt_tokens": "7", "completion_tokens": 5},
        {"prompt_tokens": 7, "completion_tokens": 10**9},
        {"total_tokens": 12},
        [],
        "many",
    ],
)
def test_impossible_usage_is_no_usage(usage: Any) -> None:
    assert last_usage(parse(content("a") + STOP + event_of(choices=[], usage=usage) + DONE)) is None


def test_cached_tokens_are_part_of_the_prompt() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}}

    assert last_usage(parse(content("a") + STOP + event_of(choices=[], usage=usage) + DONE)) == Usage(5, 5, 1)


@pytest.mark.parametrize(
    ("body", "last"),
    [
        (b"", Failed(FailureKind.PROTOCOL, "no event in the body: ")),
        (b"<html>no stream</html>", Failed(FailureKind.PROTOCOL, "no event in the body: <html>no stream</html>")),
        (b"data: {not json}\n\n", Failed(FailureKind.PROTOCOL, "not a chunk: {not json}")),
        (b"data: [1]\n\n", Failed(FailureKind.PROTOCOL, "not a chunk: [1]")),
        (b"data: " + b"[" * 100_000 + b"\n\n", Failed(FailureKind.PROTOCOL, "not a chunk: " + "[" * 500)),
        (content("a"), BROKEN_OFF),
        (content("a") + b": keep-alive\n\n", BROKEN_OFF),
        (content("a") + b"data: [DON", BROKEN_OFF),
        (content("a") + DONE, Done("stop")),
        (content("a") + STOP + content("late"), Done("stop")),
        (content("a", "length"), Done("length")),
        (content("") + STOP + DONE, Failed(FailureKind.EMPTY, "finished without output: stop")),
        (DONE, Failed(FailureKind.EMPTY, "finished without output: ")),
        (b'{"error": {"message": "busy"}}', Failed(FailureKind.OVERLOAD, "busy")),
        (b'{"object": "error", "message": "busy", "code": 400}', Failed(FailureKind.REQUEST, "400 busy")),
        (content("a") + b'event: error\ndata: "boom"\n\n', Failed(FailureKind.OVERLOAD, "boom")),
    ],
)
def test_how_an_answer_ends(body: bytes, last: Event) -> None:
    assert parse(body)[-1] == last


def test_nothing_follows_the_end() -> None:
    events = parse(content("a") + STOP + DONE + content("b") + DONE, content("c"))

    assert text_of(events) == "a"
    assert events[-1] == Done("stop")


def test_a_reason_of_ours_ends_an_answer_unless_it_is_whole() -> None:
    late = Failed(FailureKind.TIMEOUT, "silence")
    cut, whole = AnswerParser(), AnswerParser()
    cut.feed(content("a"))
    whole.feed(content("a") + STOP)

    assert cut.end(late) == [late]
    assert whole.end(late) == [Done("stop")]


def test_an_event_of_absurd_size_is_refused_after_those_before_it() -> None:
    longest = b"data: " + b" " * (MAX_EVENT - 8) + b"\n\n"
    failed = Failed(FailureKind.PROTOCOL, f"an event of more than {MAX_EVENT} bytes")

    assert list(EventSplitter().feed(longest)) == [longest]
    for body in (
        content("a") + b"data: " + b"x" * MAX_EVENT,
        content("a") + b" " + longest,
        content("a") + b" " + longest[:-1] + b"y",
    ):
        assert [type(event) for event in AnswerParser().feed(body)] == [Delta, Failed]
        assert AnswerParser().feed(body)[-1] == failed


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, b'{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}', FailureKind.AUTH),
        (403, b"", FailureKind.AUTH),
        (402, b'{"error":{"message":"Insufficient Balance","type":"unknown_error"}}', FailureKind.QUOTA),
        (
            429,
            b'{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}',
            FailureKind.QUOTA,
        ),
        (429, b'{"error":{"message":"Rate limit reached","code":"rate_limit_exceeded"}}', FailureKind.RATE),
        (429, b"<html>", FailureKind.RATE),
        (400, b'{"error":{"message":"too long","code":"context_length_exceeded"}}', FailureKind.CONTEXT_TOO_LONG),
        (413, b"", FailureKind.CONTEXT_TOO_LONG),
        (400, b'{"error":{"message":"filtered","code":"content_filter"}}', FailureKind.CONTENT),
        (400, b'{"code":"DataInspectionFailed","message":"Input data may be bad"}', FailureKind.CONTENT),
        (400, b'{"error":"no such parameter"}', FailureKind.REQUEST),
        (404, b'{"error":{"message":"The model does not exist","code":"model_not_found"}}', FailureKind.REQUEST),
        (400, b'[{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}]', FailureKind.REQUEST),
        (422, b'{"detail":[{"msg":"field required"}]}', FailureKind.REQUEST),
        (408, b"", FailureKind.TIMEOUT),
        (504, b"", FailureKind.TIMEOUT),
        (500, b"", FailureKind.OVERLOAD),
        (529, b'{"error":{"type":"overloaded"}}', FailureKind.OVERLOAD),
        (302, b"", FailureKind.PROTOCOL),
        (200, b"<html>welcome</html>", FailureKind.PROTOCOL),
        (0, b'{"error":{"code":429,"message":"slow down"}}', FailureKind.RATE),
        (0, b'{"error":{"code":"503","message":"down"}}', FailureKind.OVERLOAD),
        (0, b'{"error":{"code":null,"message":"?"}}', FailureKind.OVERLOAD),
    ],
)
def test_what_a_refusal_means(status: int, body: bytes, kind: FailureKind) -> None:
    failed = refusal(status, body)

    assert (failed.kind, failed.status) == (kind, status)


def test_a_refusals_words_are_kept_for_the_log_and_kept_short() -> None:
    failed = refusal(400, json.dumps({"error": {"code": "bad", "message": "x" * 5000}}).encode())

    assert failed.detail == "bad " + "x" * 496


@given(st.binary(max_size=200), st.integers(0, 599))
def test_no_refusal_raises(body: bytes, status: int) -> None:
    assert refusal(status, body).status == status
