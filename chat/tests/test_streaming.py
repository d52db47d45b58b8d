"""One reader's way from an answer to bytes: framing, pacing, heartbeats, departure. No server, no database."""

import asyncio
import json
import uuid
from collections.abc import Mapping
from typing import Any

import pytest

from chat import streaming
from chat.events import Delta
from chat.generation import Answer
from chat.streaming import Framing, Reader, refuse, stream
from chat.turn import Ending
from tenants.errors import ErrorCode, ProductError

MESSAGE = uuid.UUID(int=1)
CONVERSATION = uuid.UUID(int=2)
RECEIPT = {"charge": "12", "reason": "stop"}
BROKEN = ProductError(ErrorCode.OTHER, "broke off", type="answer_cut_short", scope="model", action="retry")


class Connection:
    """Keeps what was sent and when; leaves when told."""

    def __init__(self, *, slow: float = 0) -> None:
        self.sent: list[bytes] = []
        self.times: list[float] = []
        self.head: Mapping[str, Any] = {}
        self.ended = False
        self.left = asyncio.Event()
        self.slow = slow

    async def send(self, event: Mapping[str, Any]) -> None:
        if event["type"] == "http.response.start":
            self.head = event
            return
        assert not self.ended, "sent after the end"
        await asyncio.sleep(self.slow)
        if event["body"]:
            self.sent.append(event["body"])
            self.times.append(asyncio.get_running_loop().time())
        self.ended = not event["more_body"]

    async def receive(self) -> Mapping[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


def new_answer() -> Answer:
    return Answer(message_id=MESSAGE, conversation_id=CONVERSATION, model="m")


def delta(text: str) -> Delta:
    return Delta(text=text, raw=b"data: <%b>\n\n" % text.encode(), output=True)


def reader(framing: Framing, offset: int = 0) -> Reader:
    return Reader(framing=framing, language="en", request_id="r1", offset=offset)


def texts(frames: list[bytes]) -> str:
    return "".join(json.loads(frame.removeprefix(b"success: "))["content"] for frame in frames if frame[:1] == b"s")


async def read(answer: Answer, framing: Framing, *, offset: int = 0) -> Connection:
    connection = Connection()
    await stream(connection.send, connection.receive, reader(framing, offset), answer)
    return connection


def whole(*parts: str, ending: Ending | None = None) -> Answer:
    answer = new_answer()
    for part in parts:
        answer.append([delta(part)])
    answer.end(ending or Ending(finish_reason="stop", receipt=RECEIPT))
    return answer


async def test_h5_is_the_upstreams_bytes_then_receipt_then_done() -> None:
    connection = await read(whole("a", "b"), Framing.H5)
    assert b"".join(connection.sent) == (
        b'data: <a>\n\ndata: <b>\n\nevent: receipt\ndata: {"charge":"12","reason":"stop"}\n\ndata: [DONE]\n\n'
    )
    assert connection.ended


async def test_h5_failure_has_no_done() -> None:
    connection = await read(whole("a", ending=Ending(failure=BROKEN)), Framing.H5)
    body = b"".join(connection.sent)
    assert body.startswith(b"data: <a>\n\nevent: error\ndata: ")
    told = json.loads(body.split(b"event: error\ndata: ")[1])
    assert told == BROKEN.body("r1")
    assert b"[DONE]" not in body


async def test_the_mini_program_frames_in_order() -> None:
    connection = await read(whole("你", "好"), Framing.MINI_PROGRAM)
    assert connection.sent == [
        b'success: {"content":"","message_id":"%b","conversation_id":"%b"}\r\n'
        % (str(MESSAGE).encode(), str(CONVERSATION).encode()),
        b'success: {"content":"\\u4f60\\u597d"}\r\n',
        b'success: {"content":"","receipt":{"charge":"12","reason":"stop"}}\r\n',
        b"0\r\n\r\n",
    ]


async def test_the_mini_program_failure_is_the_last_frame() -> None:
    connection = await read(whole("a", ending=Ending(receipt=RECEIPT, failure=BROKEN)), Framing.MINI_PROGRAM)
    kinds = [frame.split(b"\r\n")[0][:16] for frame in connection.sent]
    assert kinds == [b'success: {"conte'] * 3 + [b"event: error\ndat"]
    assert connection.gaps()[-1] >= streaming.SILENCE_BEFORE_END - 0.001


async def test_frames_keep_their_distance_and_join_what_came_between() -> None:
    answer = new_answer()
    connection = Connection()

    async def write() -> None:
        for number in range(200):
            answer.append([delta(f"{number} ")])
            await asyncio.sleep(0.001)
        answer.end(Ending(finish_reason="stop", receipt=RECEIPT))

    writer = asyncio.create_task(write())
    await stream(connection.send, connection.receive, reader(Framing.MINI_PROGRAM), answer)
    await writer
    assert texts(connection.sent) == "".join(f"{number} " for number in range(200))
    assert min(connection.gaps()) >= streaming.FRAME_GAP - 0.001
    assert connection.gaps()[-1] >= streaming.SILENCE_BEFORE_END - 0.001
    assert len(connection.sent) < 100


async def test_a_burst_larger_than_a_frame_is_cut_and_paced() -> None:
    text = "与rror success 😀" * 60
    connection = await read(whole(text), Framing.MINI_PROGRAM)
    assert texts(connection.sent) == text
    assert min(connection.gaps()) >= streaming.FRAME_GAP - 0.001
    escaped = [frame.removeprefix(b'success: {"content":"').removesuffix(b'"}\r\n') for frame in connection.sent[1:-2]]
    assert max(len(part) for part in escaped) <= 480


@pytest.mark.parametrize(
    ("framing", "beat"), [(Framing.H5, b": ping\n\n"), (Framing.MINI_PROGRAM, b'success: {"content":""}\r\n')]
)
async def test_silence_is_filled(framing: Framing, beat: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT_AFTER", 0.06)
    monkeypatch.setattr(streaming, "PING_AFTER", 0.06)
    answer = new_answer()
    asyncio.get_running_loop().call_later(0.5, lambda: answer.end(Ending(receipt=RECEIPT)))
    connection = await read(answer, framing)
    assert connection.sent.count(beat) > 1


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("offset", range(8))
async def test_an_offset_sends_what_follows_it(framing: Framing, offset: int) -> None:
    connection = await read(whole("a😀c", "你好", "f"), framing, offset=offset)
    body = b"".join(connection.sent)
    if framing is Framing.MINI_PROGRAM:
        assert texts(connection.sent) == "a😀c你好f"[offset:]
        return
    found = ""
    for line in body.split(b"\n\n"):
        if line.startswith(b"data: <"):
            found += line.removeprefix(b"data: <").removesuffix(b">").decode()
        elif line.startswith(b"data: {"):
            found += json.loads(line.removeprefix(b"data: "))["choices"][0]["delta"]["content"]
    assert found == "a😀c你好f"[offset:]
    assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("framing", list(Framing))
async def test_a_reader_that_leaves_ends_its_stream_and_nothing_else(framing: Framing) -> None:
    answer = new_answer()
    answer.append([delta("a")])
    leaver, stayer = Connection(), Connection()
    leaving = asyncio.create_task(stream(leaver.send, leaver.receive, reader(framing), answer))
    staying = asyncio.create_task(stream(stayer.send, stayer.receive, reader(framing), answer))
    await asyncio.sleep(0.01)
    leaver.left.set()
    await asyncio.wait_for(leaving, 5)
    assert not leaver.ended
    answer.append([delta("b")])
    answer.end(Ending(finish_reason="stop", receipt=RECEIPT))
    await asyncio.wait_for(staying, 5)
    assert stayer.ended
    alone = await read(answer, framing)
    assert texts(stayer.sent) == texts(alone.sent)


async def test_a_slow_reader_gets_everything_in_few_pieces() -> None:
    answer = new_answer()
    connection = Connection(slow=0.02)
    reading = asyncio.create_task(stream(connection.send, connection.receive, reader(Framing.H5), answer))
    for number in range(300):
        answer.append([delta(str(number))])
        await asyncio.sleep(0)
    answer.end(Ending(finish_reason="stop", receipt=RECEIPT))
    await reading
    assert b"".join(connection.sent).count(b"data: <") == 300
    assert len(connection.sent) < 20


async def test_a_connection_that_breaks_while_writing_is_a_reader_that_left() -> None:
    async def broken(event: Mapping[str, Any]) -> None:
        if event["type"] == "http.response.body":
            raise ConnectionResetError

    connection = Connection()
    await stream(broken, connection.receive, reader(Framing.H5), whole("a"))


@pytest.mark.parametrize("framing", list(Framing))
async def test_a_connection_that_takes_nothing_is_left(framing: Framing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "STUCK_AFTER", 0.05)
    taken: list[Mapping[str, Any]] = []

    async def stuck(event: Mapping[str, Any]) -> None:
        if event["type"] == "http.response.body":
            await asyncio.Event().wait()
        taken.append(event)

    answer = whole("a")
    await asyncio.wait_for(stream(stuck, Connection().receive, reader(framing), answer), 10)
    assert [event["type"] for event in taken] == ["http.response.start"]
    assert answer.readers == 0


async def test_a_silent_answer_is_no_stuck_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "STUCK_AFTER", 0.02)
    answer = new_answer()
    asyncio.get_running_loop().call_later(0.2, lambda: answer.end(Ending(receipt=RECEIPT)))
    connection = await read(answer, Framing.H5)
    assert connection.ended


async def test_a_reader_that_leaves_as_it_is_woken_has_left() -> None:
    answer = new_answer()
    waiting = asyncio.create_task(answer.grown(0, within=60))
    await asyncio.sleep(0)
    answer.append([delta("a")])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_what_is_sent_at_once_is_bounded() -> None:
    answer = new_answer()
    answer.append([delta("x") for _ in range(10_000)])
    answer.end(Ending(finish_reason="stop", receipt=RECEIPT))
    connection = await read(answer, Framing.H5)
    assert b"".join(connection.sent).count(b"data: <x>") == 10_000
    assert max(map(len, connection.sent)) <= streaming.MOST_CHUNKS * len(delta("x").raw)


@pytest.mark.parametrize("framing", list(Framing))
async def test_a_refusal_is_200_with_one_failure(framing: Framing) -> None:
    connection = Connection()
    await refuse(connection.send, reader(framing), BROKEN)
    assert connection.head["status"] == 200
    assert len(connection.sent) == 1
    assert connection.sent[0].startswith(b"event: error\ndata: {")
    assert connection.sent[0].endswith(b"}\n\n" if framing is Framing.H5 else b"}\r\n")
    assert connection.ended


async def test_the_headers() -> None:
    connection = await read(whole("a"), Framing.H5)
    headers = {name.decode(): value.decode() for name, value in connection.head["headers"]}
    assert headers == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache, no-transform",
        "x-accel-buffering": "no",
        "x-request-id": "r1",
        "x-message-id": str(MESSAGE),
        "x-conversation-id": str(CONVERSATION),
        "access-control-allow-origin": "*",
        "access-control-allow-methods": "GET, POST, OPTIONS",
        "access-control-allow-headers": "Authorization, Content-Type, Token, X-Request-Id, Accept-Language",
        "access-control-expose-headers": "X-Message-Id, X-Conversation-Id, X-Request-Id",
        "access-control-max-age": "86400",
    }


async def test_looks_in_vain_at_another_process_s_answer_are_not_told_as_silence() -> None:
    answer = new_answer()
    waiting = asyncio.create_task(answer.grown(0, within=30.0))
    await asyncio.sleep(0)
    answer.append_stored("", "")
    await asyncio.sleep(0)
    assert not waiting.done()
    answer.append_stored("at last", "")
    assert await waiting
