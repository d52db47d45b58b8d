"""The streaming client and the choice among targets, over real HTTP against the scripted provider."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from chat.events import Delta, Done, Event, Failed, FailureKind, Started, Usage
from chat.upstream import client, tokens
from chat.upstream.base import ChatRequest, Timeouts, UpstreamTarget
from chat.upstream.health import Board
from chat.upstream.openai import AnswerParser, OpenAIUpstream
from chat.upstream.pool import stream_first_good
from tests.doubles.upstream import ScriptedUpstream, load_recording, names_of_recordings

KEY = "sk-a-key-that-must-not-leak"
REQUEST = ChatRequest(messages=[{"role": "user", "content": "hello"}], max_tokens=100)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as scripted:
        yield scripted
        await client.close()


def target(upstream: ScriptedUpstream, model: str, **limits: float) -> UpstreamTarget:
    return UpstreamTarget(
        name=f"account/{model}", base_url=upstream.base_url, model=model, api_key=KEY, timeouts=Timeouts(**limits)
    )


async def batches(upstream: ScriptedUpstream, model: str, **limits: float) -> list[list[Event]]:
    return [batch async for batch in OpenAIUpstream(target(upstream, model, **limits)).stream(REQUEST)]


async def answer(upstream: ScriptedUpstream, model: str, **limits: float) -> list[Event]:
    return [event for batch in await batches(upstream, model, **limits) for event in batch]


async def pooled(*targets: UpstreamTarget) -> list[Event]:
    in_turn = [replace(target, priority=number) for number, target in enumerate(targets)]
    batches = [batch async for batch in stream_first_good(in_turn, REQUEST, board=Board())]
    return [event for batch in batches for event in batch]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


async def closed_port() -> int:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()
    return port


async def seen_leaving(upstream: ScriptedUpstream) -> bool:
    """Return whether the provider sees within a few seconds that its client left."""
    for _ in range(300):
        if upstream.requests[-1].left:
            return True
        await asyncio.sleep(0.01)
    return False


# --- the request ---


async def test_what_the_provider_is_asked(upstream: ScriptedUpstream) -> None:
    request = ChatRequest(
        messages=[{"role": "system", "content": "be brief"}, {"role": "user", "content": "你好 \0 😀"}],
        max_tokens=7,
        extra={"temperature": 0, "stream": False, "model": "another"},
    )
    async for _ in OpenAIUpstream(target(upstream, "echo")).stream(request):
        pass

    (seen,) = upstream.requests
    assert seen.body == {
        "temperature": 0,
        "model": "echo",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "你好 \0 😀"}],
        "max_tokens": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["accept-encoding"] == "identity"


async def test_a_provider_without_a_key_gets_no_authorization(upstream: ScriptedUpstream) -> None:
    keyless = UpstreamTarget(name="local", base_url=upstream.base_url + "/", model="echo")

    events = await pooled(keyless)

    assert text_of(events) == "hello"
    assert "authorization" not in upstream.requests[0].headers


async def test_no_proxy_of_the_environment_is_used(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{await closed_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert text_of(await answer(upstream, "echo")) == "hello"


# --- the answer ---


async def test_the_events_of_an_answer(upstream: ScriptedUpstream) -> None:
    events = await answer(upstream, "count:3")

    assert events[0] == Started(target="account/count:3", model="count:3")
    assert [event.text for event in events if isinstance(event, Delta) and event.output] == ["1 ", "2 ", "3 "]
    prompt = tokens.count_messages(REQUEST.messages)
    assert events[-2:] == [Usage(prompt=prompt, cached=0, completion=3), Done("stop")]


@pytest.mark.parametrize("name", sorted({*names_of_recordings()} - {"too-long"}))
async def test_a_recording_means_the_same_over_http(upstream: ScriptedUpstream, name: str) -> None:
    parser = AnswerParser()
    expected = parser.feed(load_recording(name).body)
    expected += parser.end()

    for model in (name, f"drip:{name}", f"joined:{name}"):
        assert (await answer(upstream, model))[1:] == expected


async def test_one_read_is_one_batch(upstream: ScriptedUpstream) -> None:
    joined = await batches(upstream, "joined:plain")

    assert len(joined) == 1
    assert text_of(joined[0]) == "The capital of France is Paris."


async def test_deltas_are_not_kept_waiting(upstream: ScriptedUpstream) -> None:
    # A provider that says no more must not keep back what it has said.
    async with aclosing(OpenAIUpstream(target(upstream, "stalls:2")).stream(REQUEST)) as stream:
        text = ""
        async for batch in stream:
            text += text_of(batch)
            if text == "1 2 ":
                break

    assert await seen_leaving(upstream)


async def test_a_connection_is_used_again(upstream: ScriptedUpstream) -> None:
    for model in ("count:3", "late-end", "plain", "http-500", "crlf", "echo"):
        await answer(upstream, model)

    assert len({seen.peer for seen in upstream.requests}) == 1


async def test_many_streams_at_once_stay_apart(upstream: ScriptedUpstream) -> None:
    answers = await asyncio.gather(*(answer(upstream, f"count:{count}") for count in range(1, 60)))

    assert [text_of(events).split()[-1] for events in answers] == [str(count) for count in range(1, 60)]


async def test_a_session_closed_is_opened_anew(upstream: ScriptedUpstream) -> None:
    await answer(upstream, "echo")
    await client.close()
    await client.close()

    assert text_of(await answer(upstream, "echo")) == "hello"


async def test_the_provider_stops_when_the_reader_leaves(upstream: ScriptedUpstream) -> None:
    async with aclosing(OpenAIUpstream(target(upstream, "pace:1000:10")).stream(REQUEST)) as stream:
        async for _ in stream:
            break

    assert await seen_leaving(upstream)


async def test_the_provider_stops_when_the_task_is_cancelled(upstream: ScriptedUpstream) -> None:
    began = asyncio.Event()

    async def read() -> None:
        async for _ in stream_first_good([target(upstream, "stalls:2")], REQUEST, board=Board()):
            began.set()

    task = asyncio.create_task(read())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await seen_leaving(upstream)


async def test_what_comes_while_the_network_is_left_unread_is_read_at_once(upstream: ScriptedUpstream) -> None:
    eager = await batches(upstream, "pace:40:5")
    stream = OpenAIUpstream(target(upstream, "pace:40:5")).stream(REQUEST, rest=lambda: 0.05)
    patient = [batch async for batch in stream]

    assert text_of([event for batch in patient for event in batch]) == text_of(
        [event for batch in eager for event in batch]
    )
    assert len(patient) * 2 < len(eager)


async def test_a_stream_is_stopped_in_the_middle_of_a_rest(upstream: ScriptedUpstream) -> None:
    async with aclosing(OpenAIUpstream(target(upstream, "pace:500:5")).stream(REQUEST, rest=lambda: 30.0)) as stream:
        await anext(stream)
        resting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.1)
        resting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await resting

    assert await seen_leaving(upstream)


# --- faults ---


@pytest.mark.parametrize(
    ("model", "kind", "status"),
    [
        ("http-400", FailureKind.REQUEST, 400),
        ("http-401", FailureKind.AUTH, 401),
        ("http-402", FailureKind.QUOTA, 402),
        ("http-429", FailureKind.RATE, 429),
        ("http-500", FailureKind.OVERLOAD, 500),
        ("http-503", FailureKind.OVERLOAD, 503),
        ("too-long", FailureKind.CONTEXT_TOO_LONG, 400),
        ("refuses-max-tokens", FailureKind.REQUEST, 400),
        ("no-such-model", FailureKind.REQUEST, 404),
        ("html", FailureKind.PROTOCOL, 200),
        ("json", FailureKind.OVERLOAD, 200),
        ("redirect", FailureKind.PROTOCOL, 307),
    ],
)
async def test_a_refusal_is_the_only_event(
    upstream: ScriptedUpstream, model: str, kind: FailureKind, status: int
) -> None:
    (failed,) = await answer(upstream, model)

    assert isinstance(failed, Failed)
    assert (failed.kind, failed.status) == (kind, status)
    assert len(upstream.requests) == 1


async def test_the_key_stays_out_of_what_is_logged(upstream: ScriptedUpstream) -> None:
    (failed,) = await answer(upstream, "http-401")

    assert isinstance(failed, Failed)
    assert failed.detail == "refused refused with 401 for Bearer [hidden]"
    assert KEY not in repr(failed)
    assert KEY not in repr(target(upstream, "http-401"))


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:{port}/v1", "not a url", "", "http://[::1", "ftp://127.0.0.1/"])
async def test_nobody_there(base_url: str) -> None:
    nowhere = UpstreamTarget(name="nowhere", base_url=base_url.format(port=await closed_port()), model="echo")

    (failed,) = await pooled(nowhere)
    await client.close()

    assert isinstance(failed, Failed)
    assert (failed.kind, failed.status) == (FailureKind.NETWORK, 0)


async def test_a_key_that_is_no_header_is_a_failure_that_does_not_show_it(upstream: ScriptedUpstream) -> None:
    broken = UpstreamTarget(name="broken", base_url=upstream.base_url, model="echo", api_key="sk-first\r\nline: second")

    (failed,) = await pooled(broken)

    assert isinstance(failed, Failed)
    assert failed.kind == FailureKind.NETWORK
    assert "sk-first" not in failed.detail


@pytest.mark.parametrize(
    ("model", "limits", "text"),
    [
        ("mute", {"first_token": 0.2}, ""),
        ("mute", {"total": 0.2}, ""),
        ("silent", {"first_token": 0.2}, ""),
        ("silent", {"total": 0.2}, ""),
        ("slow:5000", {"first_token": 0.2}, ""),
        ("stalls:3", {"idle": 0.2}, "1 2 3 "),
        ("stalls:3", {"total": 0.5}, "1 2 3 "),
    ],
)
async def test_each_limit_ends_a_stream(
    upstream: ScriptedUpstream, model: str, limits: dict[str, float], text: str
) -> None:
    events = await answer(upstream, model, **limits)

    assert text_of(events) == text
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == FailureKind.TIMEOUT
    assert await seen_leaving(upstream)


async def test_comments_do_not_count_as_a_first_token(upstream: ScriptedUpstream) -> None:
    (failed,) = await pooled(target(upstream, "thinking", first_token=0.3))

    assert failed == Failed(FailureKind.TIMEOUT, "the limit for the first token passed")


async def test_a_consumer_that_takes_its_time_is_no_silence(upstream: ScriptedUpstream) -> None:
    events: list[Event] = []
    async for batch in OpenAIUpstream(target(upstream, "pace:5:400", idle=1.0)).stream(REQUEST):
        events += batch
        if text_of(batch) == "2 ":
            await asyncio.sleep(1.4)  # the limit passes meanwhile, before the provider is done

    assert (text_of(events), events[-1]) == ("1 2 3 4 5 ", Done("stop"))


async def test_a_steady_stream_outlives_the_limit_for_its_first_token(upstream: ScriptedUpstream) -> None:
    events = await answer(upstream, "pace:20:30", first_token=0.3)

    assert events[-1] == Done("stop")


async def test_a_connection_cut_in_mid_answer(upstream: ScriptedUpstream) -> None:
    events = await answer(upstream, "reset:2")

    assert text_of(events) == "1 2 "
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == FailureKind.NETWORK


async def test_an_event_of_absurd_size(upstream: ScriptedUpstream) -> None:
    events = await answer(upstream, "huge-event")

    assert text_of(events) == "begins "
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == FailureKind.PROTOCOL


# --- the choice among targets ---


@pytest.mark.parametrize(
    "broken",
    [
        *("http-400", "http-401", "http-402", "http-403", "http-404", "http-429", "http-500", "http-503", "http-529"),
        *("busy:7", "empty", "error-event-first", "html", "garbage", "half-frame", "mute", "silent", "thinking"),
        *("breaks:before-headers", "breaks:after-headers", "refuses-max-tokens", "redirect"),
    ],
)
async def test_a_failure_before_output_goes_to_the_next(upstream: ScriptedUpstream, broken: str) -> None:
    events = await pooled(
        target(upstream, broken, first_token=0.2), target(upstream, "count:2"), target(upstream, "echo")
    )

    assert events[0] == Started(target="account/count:2", model="count:2")
    assert sum(isinstance(event, Started) for event in events) == 1
    assert text_of(events) == "1 2 "
    assert events[-1] == Done("stop")
    assert [seen.body["model"] for seen in upstream.requests] == [broken, "count:2"]


@pytest.mark.parametrize(
    ("refused", "kind"),
    [
        ("context", FailureKind.CONTEXT_TOO_LONG),
        ("content", FailureKind.CONTENT),
        ("content-filter", FailureKind.CONTENT),
    ],
)
async def test_what_no_other_account_can_cure_is_told_at_once(
    upstream: ScriptedUpstream, refused: str, kind: FailureKind
) -> None:
    (failed,) = await pooled(target(upstream, refused), target(upstream, "echo"))

    assert isinstance(failed, Failed)
    assert failed.kind == kind
    assert [seen.body["model"] for seen in upstream.requests] == [refused]


@pytest.mark.parametrize("broken", ["error-event", "broken-off", "reset:2"])
async def test_a_failure_after_output_is_passed_on(upstream: ScriptedUpstream, broken: str) -> None:
    events = await pooled(target(upstream, broken), target(upstream, "echo"))

    assert text_of(events) != ""
    assert isinstance(events[-1], Failed)
    assert [seen.body["model"] for seen in upstream.requests] == [broken]


@pytest.mark.parametrize(("name", "last"), [("reasoning-only", Done("length")), ("tools", Done("tool_calls"))])
async def test_hidden_output_is_output(upstream: ScriptedUpstream, name: str, last: Done) -> None:
    events = await pooled(target(upstream, name), target(upstream, "echo"))

    assert events[-1] == last
    assert [seen.body["model"] for seen in upstream.requests] == [name]


async def test_no_target_is_asked_twice_and_the_last_failure_is_told(upstream: ScriptedUpstream) -> None:
    first, second = target(upstream, "http-500"), target(upstream, "http-429")

    (failed,) = await pooled(first, second, first, second)

    assert isinstance(failed, Failed)
    assert failed.kind == FailureKind.RATE
    assert [seen.body["model"] for seen in upstream.requests] == ["http-500", "http-429"]


async def test_no_targets_are_a_failure() -> None:
    assert await pooled() == [Failed(FailureKind.REQUEST, "there is no upstream to ask")]


@pytest.mark.parametrize(
    ("models", "logged"), [(["http-500", "mute"], 2), (["http-500", "plain"], 1), (["reset:2"], 1)]
)
async def test_each_failure_is_logged_once_with_its_account(
    upstream: ScriptedUpstream, models: list[str], logged: int
) -> None:
    with capture_logs() as logs:
        await pooled(*[target(upstream, model, first_token=0.1) for model in models])
    failed = [(line["event"], line["target"]) for line in logs if line["log_level"] == "warning"]
    assert failed == [("upstream_failed", f"account/{model}") for model in models[:logged]]
