"""Frames against the clients that read them: the copied one, which we cannot change, and a careful one like ours.

The copied client must be as fragile here as it is in the field, or passing it proves nothing: so it also meets streams
that break the rules, and must break.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat import frames
from tests.clients.miniprogram import NODE, Client, run_client

pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node on this machine")

BETWEEN_TEXTS = 0.05  # seconds, the protocol's rule 4
BEFORE_THE_END = 0.2  # rule 5
A_PROXYS_PATIENCE = {"mode": "glue", "ms": 20}
NASTY = (
    'An error is no success. {"content":"no"}\r\nsuccess: event: error\ndata: 与rror 与uccess errorerror successuccess '
    "0\r\n\r\n\r\n \u2028 \0 \\u0072 😀👨\u200d👩\u200d👧 " + "你好" * 120 + "😀" * 90
)
RECEIPT = {"charge": "12000", "note": "no error, a success", "funding": {"free": False}}
REFUSAL = {"code": 101, "msg": "余额不足 error success", "type": "balance_short", "action": "recharge"}

Timed = tuple[float, bytes]  # seconds of silence, then one HTTP chunk


@asynccontextmanager
async def server(chunks: Sequence[Timed]) -> AsyncIterator[str]:
    """Serve one body, each chunk written for itself; yields the URL."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for pause, data in chunks:
            await asyncio.sleep(pause)
            await response.write(data)
        return response

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def shown(client: Client, chunks: Sequence[Timed], **delivery: Any) -> dict[str, Any]:
    async with server(chunks) as url:
        return await run_client(client, url, delivery=delivery or None)


def paced(text: str, *, receipt: dict[str, Any] | None = None, last: bytes = frames.END) -> list[Timed]:
    """An answer as the protocol wants it written."""
    chunks = [(0.0, frames.first_frame("m1", "c1"))]
    chunks += [(BETWEEN_TEXTS, frame) for frame in frames.text_frames(text)]
    chunks += [(BETWEEN_TEXTS, frames.HEARTBEAT)]
    if receipt is not None:
        chunks.append((BETWEEN_TEXTS, frames.receipt_frame(receipt)))
    return [*chunks, (BEFORE_THE_END, last)]


def h5(text: str) -> list[Timed]:
    words = [frames.chunk_event(character, message_id="m1", model="demo", created=1700000000) for character in text]
    return [(0.0, data) for data in [*words, frames.PING, frames.receipt_event(RECEIPT), frames.DONE]]


# --- the copied client ---


@pytest.mark.parametrize("delivery", [{"mode": "asis"}, A_PROXYS_PATIENCE])
async def test_the_copied_client_loses_nothing(delivery: dict[str, Any]) -> None:
    page = await shown("copied", paced(NASTY, receipt=RECEIPT), **delivery)

    assert page["text"] == NASTY
    assert page["lost"] == []
    assert page["textAfterUnlock"] == ""
    assert (page["locked"], page["code"]) == (False, None)
    assert (page["messageId"], page["conversationId"]) == ("m1", "c1")
    assert page["receipt"] == RECEIPT


async def test_the_copied_client_sees_a_refusal_after_text() -> None:
    page = await shown("copied", paced("half an ans", last=frames.error_frame(REFUSAL)), **A_PROXYS_PATIENCE)

    assert page["text"] == "half an ans"
    assert page["error"] == REFUSAL
    assert (page["locked"], page["code"], page["lost"]) == (False, 101, [])


async def test_the_copied_client_sees_a_refusal_alone() -> None:
    page = await shown("copied", [(0.0, frames.error_frame(REFUSAL))])

    assert (page["locked"], page["code"], page["text"], page["lost"]) == (False, 101, "", [])


HI = b'success: {"content":"hi"}\r\n'
HALVES = HI[:12], HI[12:]
CHARACTER = 'success: {"content":"你"}\r\n'.encode()
END = (BEFORE_THE_END, frames.END)


@pytest.mark.parametrize(
    ("broken_rule", "chunks", "meant"),
    [
        ("a word in the text", [(0.0, b'success: {"content":"an error"}\r\n'), END], "an error"),
        ("a word formed with a digit", [(0.0, b'success: {"content":"\\u4e0error"}\r\n'), END], "与rror"),
        ("a character cut in two", [(0.0, CHARACTER[:22]), (0.05, CHARACTER[22:]), END], "你"),
        ("a frame cut in two", [(0.0, HALVES[0]), (0.05, HALVES[1]), END], "hi"),
        ("a comment", [(0.0, frames.PING), (0.05, HI), END], "hi"),
        ("the end glued to text", [(0.0, HI + frames.END)], "hi"),
        ("a bare line end in mid-answer", [(0.0, b"\r\n"), (0.05, HI), END], "hi"),
        ("no content", [(0.0, b'success: {"message_id":"m1"}\r\n'), (0.05, HI), END], "hi"),
        ("no end", [(0.0, HI)], "hi"),
    ],
)
async def test_the_copied_client_breaks_where_a_rule_is_broken(
    broken_rule: str, chunks: list[Timed], meant: str
) -> None:
    page = await shown("copied", chunks)

    is_unharmed = (page["text"], page["lost"], page["locked"], page["textAfterUnlock"]) == (meant, [], False, "")
    assert not (is_unharmed and page["code"] is None), broken_rule


# --- a careful client ---

DELIVERIES = [
    {"mode": "asis"},
    {"mode": "bytes"},
    {"mode": "all"},
    *({"mode": "random", "seed": seed} for seed in (1, 2, 3)),
]


@pytest.mark.parametrize("delivery", DELIVERIES)
async def test_the_careful_client_reads_frames_however_they_arrive(delivery: dict[str, Any]) -> None:
    page = await shown("careful", [(0.0, data) for _, data in paced(NASTY, receipt=RECEIPT)], **delivery)

    assert page["text"] == NASTY
    assert (page["ended"], page["error"], page["unknown"], page["unread"]) == (True, None, [], 0)
    assert (page["messageId"], page["conversationId"], page["receipt"]) == ("m1", "c1", RECEIPT)


@pytest.mark.parametrize("delivery", DELIVERIES)
async def test_the_careful_client_reads_events_however_they_arrive(delivery: dict[str, Any]) -> None:
    page = await shown("careful", h5(NASTY[:200]), **delivery)

    assert page["text"] == NASTY[:200]
    assert (page["ended"], page["error"], page["unknown"], page["unread"]) == (True, None, [], 0)
    assert page["receipt"] == RECEIPT


@pytest.mark.parametrize("refusal", [frames.error_frame(REFUSAL), frames.error_event(REFUSAL)])
async def test_the_careful_client_reads_a_refusal_of_either_framing(refusal: bytes) -> None:
    page = await shown("careful", [(0.0, refusal)], mode="bytes")

    assert (page["text"], page["ended"], page["error"]) == ("", False, REFUSAL)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=1500), st.integers(0, 2**31))
async def test_javascript_reads_any_text_back(text: str, seed: int) -> None:
    page = await shown("careful", [(0.0, data) for _, data in paced(text)], mode="random", seed=seed)

    assert (page["text"], page["ended"]) == (text, True)


async def test_a_client_may_hang_up_at_any_byte() -> None:
    async with server(paced(NASTY)) as url:
        page = await run_client("careful", url, hang_up_after=100)

    assert page["ended"] is False
    assert page["bytes"] >= 100
