"""A scripted provider of models over real HTTP, behaving as the name of the model says.

It speaks OpenAI's chat completions at `base_url`, the same as Azure would at `azure_url`, and Anthropic's messages.

In a test:       async with ScriptedUpstream() as upstream: … upstream.base_url … upstream.requests
As a process:    with upstream_process() as upstream: … upstream.base_url … upstream.requests()
By hand:         python -m tests.doubles.upstream --port 9000 [--pace 1]

A model is the name of a recording (chat/tests/recordings), replayed chunk by chunk, or one of

    echo               the last user message, a few characters in each delta
    sees:TOKENS        what each image of the last user message is, decoded, and its text; an image is so many tokens
    count:N            the deltas "1 " … "N "
    pace:N:MS          the same, MS milliseconds apart
    burst:N            the same as count, the whole answer in one write
    slow:MS            three deltas after a silence of MS
    late-end           three deltas, [DONE], and the end of the body a little later
    stalls:N           N deltas, then silence until the client leaves
    reset:N            N deltas, then the connection is aborted
    breaks:PLACE       the connection is aborted: before-headers, after-headers, after-first-delta, mid-delta,
                       before-usage, after-usage, before-done (in the middle of the last event)
    silent             headers, then silence; mute: not even headers; thinking: SSE comments and nothing else
    endless            deltas until the client leaves
    garbage            bytes that are no events; half-frame: the half of one, and a proper end of the body
    recovers:N:KEY     echo, after N refusals with 503; each key has a count of its own
    busy:SECONDS       HTTP 429 with Retry-After
    context, content   HTTP 400, as OpenAI says that the prompt is too long, and that its filter refuses it
    ignores-max-tokens 2,000 deltas whatever was allowed (all others of these obey); with :N so many, in one piece with
                       the usage behind them
    refuses-max-tokens HTTP 400, as OpenAI's reasoning models answer to that parameter
    drip:NAME          a recording, every byte a chunk of its own
    joined:NAME        a recording in one chunk
    http-STATUS        a refusal in OpenAI's form; it repeats the key, as some providers do
    html               a web page with status 200; json: an object with status 200
    huge-event         an event of 2 MiB; redirect: HTTP 307 to echo's address

Anthropic's endpoint has recordings of its own (…/recordings/anthropic), all of the others' names, and

    overloaded         an error event in place of the first delta; overloaded-late: one after two deltas
    thinks:N           N thinking deltas, then the answer "done"

One delta is one token in the usage. The last request is first to look at when a test fails: `GET /_requests`.
"""

import argparse
import asyncio
import base64
import io
import json
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from PIL import Image

from chat.upstream import tokens

RECORDINGS = Path(__file__).resolve().parents[2] / "chat" / "tests" / "recordings"
MANY = 2000  # deltas of a model that ignores its limit
PAUSE_OF_WRITTEN_EVENTS = 0.02  # seconds at pace 1, for recordings without times


@dataclass
class Seen:
    """A request as it came; `peer` is its connection's port, `left` is set once its client goes away before the end."""

    peer: int
    headers: dict[str, str]
    body: dict[str, Any]
    left: bool = False
    path: str = ""


@dataclass(frozen=True)
class Recording:
    """One answer: `chunks` are pairs of the seconds of silence before a chunk and its bytes."""

    status: int
    content_type: str
    chunks: list[tuple[float, bytes]] = field(repr=False)

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(data for _, data in self.chunks)


def names_of_recordings() -> list[str]:
    """Return every recording's name."""
    return sorted(path.stem for path in RECORDINGS.iterdir() if path.suffix in {".jsonl", ".sse"})


def load_recording(name: str, folder: Path = RECORDINGS) -> Recording:
    """Return a recording by its name; raises FileNotFoundError."""
    written = folder / f"{name}.sse"
    if written.exists():
        events = re.findall(rb".+?(?:\r\n\r\n|\n\n|\r\r|\Z)", written.read_bytes(), re.DOTALL)
        return Recording(200, "text/event-stream", [(PAUSE_OF_WRITTEN_EVENTS, event) for event in events])
    head, *lines = (json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines())
    chunks = [(line["pause_ms"] / 1000, _bytes_of(line)) for line in lines]
    return Recording(head["status"], head["headers"]["content-type"], chunks)


def _bytes_of(line: dict[str, Any]) -> bytes:
    return base64.b64decode(line["base64"]) if "base64" in line else str(line["data"]).encode()


class ScriptedUpstream:
    """The provider, serving on a port of the loopback interface (0: a free one)."""

    def __init__(self, *, port: int = 0, pace: float = 0.0) -> None:
        self.requests: list[Seen] = []
        self.port = port
        self.refused: Counter[str] = Counter()
        self._pace = pace  # how many times slower than recorded: 0 is at once
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """What an account's base URL would be."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def azure_url(self) -> str:
        """What the base URL of an account at Azure would be."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", partial(self._complete, _Answer))
        app.router.add_post("/openai/deployments/{model}/chat/completions", partial(self._complete, _Answer))
        app.router.add_post("/v1/messages", partial(self._complete, _AnthropicAnswer))
        app.router.add_get("/_requests", self._show_requests)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def _show_requests(self, _request: web.Request) -> web.Response:
        return web.json_response([asdict(seen) for seen in self.requests])

    async def _complete(self, kind: "type[_Answer]", request: web.Request) -> web.StreamResponse:
        peer = request.transport.get_extra_info("peername")[1] if request.transport else 0
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = Seen(peer=peer, headers=headers, body=await request.json(), path=request.path_qs)
        self.requests.append(seen)
        try:
            return await kind(request, seen.body, self._pace, self.refused).give()
        except (asyncio.CancelledError, ConnectionResetError):
            seen.left = True
            raise


class _Answer:
    """One answer, as the model's name wants it."""

    _folder = RECORDINGS

    def __init__(self, request: web.Request, body: dict[str, Any], pace: float, refused: "Counter[str]") -> None:
        self._request = request
        self._body = body
        self._pace = pace
        self._refused = refused
        self._model, *self._args = str(request.match_info.get("model") or body["model"]).split(":")
        self._limit = int(body.get("max_tokens") or MANY)

    async def give(self) -> web.StreamResponse:
        own = getattr(self, "_give_" + self._model.replace("-", "_"), None)
        if own is not None:
            response = await own()
            assert isinstance(response, web.StreamResponse)
            return response
        if status := re.fullmatch(r"http-([1-5]\d\d)", self._model):
            return self._refuse(int(status[1]))
        return await self._replay(self._model, self._pace)

    # --- recordings ---

    async def _replay(self, name: str, pace: float) -> web.StreamResponse:
        try:
            recording = load_recording(name, self._folder)
        except FileNotFoundError:
            return self._refuse(404)
        response = await self._begin(recording.status, recording.content_type)
        for pause, data in recording.chunks:
            await asyncio.sleep(pause * pace)
            await response.write(data)
        return response

    async def _give_drip(self) -> web.StreamResponse:
        response = await self._begin()
        for byte in load_recording(self._args[0], self._folder).body:
            await response.write(bytes([byte]))
            await asyncio.sleep(0)
        return response

    async def _give_joined(self) -> web.StreamResponse:
        response = await self._begin()
        await response.write(load_recording(self._args[0], self._folder).body)
        return response

    # --- made up ---

    async def _give_echo(self) -> web.StreamResponse:
        said = next(message["content"] for message in reversed(self._body["messages"]) if message["role"] == "user")
        text = said if isinstance(said, str) else "".join(part.get("text", "") for part in said)
        return await self._stream([text[start : start + 4] for start in range(0, len(text), 4)])

    async def _give_sees(self) -> web.StreamResponse:
        said = next(message["content"] for message in reversed(self._body["messages"]) if message["role"] == "user")
        parts: list[dict[str, Any]] = [{"type": "text", "text": said}] if isinstance(said, str) else said
        seen = [_seen_in(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]
        return await self._stream([f"{each}; " for each in seen] + [part.get("text", "") for part in parts])

    async def _give_count(self) -> web.StreamResponse:
        return await self._stream(_numbers(int(self._args[0])))

    async def _give_pace(self) -> web.StreamResponse:
        return await self._stream(_numbers(int(self._args[0])), pause=int(self._args[1]) / 1000)

    async def _give_burst(self) -> web.StreamResponse:
        response = await self._begin()
        deltas = [self._chunk({"content": piece}) for piece in _numbers(int(self._args[0]))]
        last = [self._chunk({}, "stop"), self._usage(len(deltas)), b"data: [DONE]\n\n"]
        await response.write(b"".join([*deltas, *last]))
        return response

    async def _give_slow(self) -> web.StreamResponse:
        return await self._stream(_numbers(3), silence=int(self._args[0]) / 1000)

    async def _give_ignores_max_tokens(self) -> web.StreamResponse:
        if not self._args:
            self._limit = MANY
            return await self._stream(_numbers(MANY))
        pieces = _numbers(int(self._args[0]))
        response = await self._begin()
        joined = b"".join(self._chunk({"content": piece}) for piece in pieces)
        await response.write(joined + self._chunk({}, "stop") + self._usage(len(pieces)) + b"data: [DONE]\n\n")
        return response

    async def _give_endless(self) -> web.StreamResponse:
        response = await self._begin()
        while True:
            await response.write(self._chunk({"content": "on "}))
            await asyncio.sleep(0.001)

    async def _give_garbage(self) -> web.StreamResponse:
        response = await self._begin()
        await response.write(b"data: \xff\xfe\x00 {no json\n\n" + bytes(range(256)))
        return response

    async def _give_half_frame(self) -> web.StreamResponse:
        response = await self._begin()
        await response.write(self._chunk({"content": "never whole"})[:-25])
        return response

    async def _give_recovers(self) -> web.StreamResponse:
        count, key = self._args
        if self._refused[key] < int(count):
            self._refused[key] += 1
            return self._refuse(503)
        return await self._give_echo()

    async def _give_late_end(self) -> web.StreamResponse:
        response = await self._stream(_numbers(3))
        await asyncio.sleep(0.02)
        return response

    async def _give_stalls(self) -> web.StreamResponse:
        await self._begin_with(_numbers(int(self._args[0])))
        return await _wait_for_ever()

    async def _give_reset(self) -> web.StreamResponse:
        response = await self._begin_with(_numbers(int(self._args[0])))
        return await self._abort(response)

    async def _give_breaks(self) -> web.StreamResponse:
        place = self._args[0]
        if place == "before-headers":
            return await self._abort(web.StreamResponse())
        response = await self._begin()
        first, second = (self._chunk({"content": piece}) for piece in _numbers(2))
        usage = [first, second, self._chunk({}, "stop"), self._usage(2)]
        parts = {
            "after-headers": [],
            "after-first-delta": [first],
            "mid-delta": [first, second[:-20]],
            "before-usage": usage[:-1],
            "after-usage": usage,
            "before-done": [*usage, b"data: [DO"],
        }
        for part in parts[place]:
            await response.write(part)
        return await self._abort(response)

    async def _give_silent(self) -> web.StreamResponse:
        await self._begin()
        return await _wait_for_ever()

    async def _give_thinking(self) -> web.StreamResponse:
        response = await self._begin()
        while True:
            await response.write(b": still thinking\n\n")
            await asyncio.sleep(0.02)

    async def _give_mute(self) -> web.StreamResponse:
        return await _wait_for_ever()

    async def _give_huge_event(self) -> web.StreamResponse:
        return await self._stream(["begins ", "x" * 2 * 1024 * 1024])

    async def _abort(self, response: web.StreamResponse) -> web.StreamResponse:
        await asyncio.sleep(0.05)  # an abort drops what is still on its way
        assert self._request.transport is not None
        self._request.transport.abort()
        return response

    # --- refusals ---

    async def _give_busy(self) -> web.StreamResponse:
        refused = self._refuse(429)
        refused.headers["Retry-After"] = self._args[0]
        return refused

    async def _give_context(self) -> web.StreamResponse:
        message = "This model's maximum context length is 8192 tokens. Please reduce the length of the messages."
        return _json(400, {"message": message, "type": "invalid_request_error", "code": "context_length_exceeded"})

    async def _give_content(self) -> web.StreamResponse:
        message = "The response was filtered due to the prompt triggering the content management policy."
        return _json(400, {"message": message, "type": None, "code": "content_filter"})

    async def _give_refuses_max_tokens(self) -> web.StreamResponse:
        message = "Unsupported parameter: 'max_tokens' is not supported with this model."
        return _json(400, {"message": message, "type": "invalid_request_error", "code": "unsupported_parameter"})

    async def _give_html(self) -> web.StreamResponse:
        return web.Response(text="<html><h1>Welcome to nginx</h1></html>", content_type="text/html")

    async def _give_json(self) -> web.StreamResponse:
        return _json(200, {"message": "model is loading", "type": "server_error"})

    async def _give_redirect(self) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect(self._request.url)

    def _refuse(self, status: int) -> web.Response:
        key = self._request.headers.get("Authorization", "")
        return _json(status, {"message": f"refused with {status} for {key}", "type": "refused", "code": None})

    # --- the stream ---

    async def _stream(self, pieces: list[str], *, pause: float = 0.0, silence: float = 0.0) -> web.StreamResponse:
        """Send the pieces, as many as the request allows, and end as OpenAI does."""
        response = await self._begin()
        await asyncio.sleep(silence)
        await response.write(self._chunk({"role": "assistant", "content": ""}))
        sent = pieces[: self._limit]
        for piece in sent:
            await asyncio.sleep(pause)
            await response.write(self._chunk({"content": piece}))
        await response.write(self._chunk({}, "stop" if len(sent) == len(pieces) else "length"))
        if (self._body.get("stream_options") or {}).get("include_usage"):
            await response.write(self._usage(len(sent)))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _begin(self, status: int = 200, content_type: str = "text/event-stream") -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": content_type})
        await response.prepare(self._request)
        return response

    async def _begin_with(self, pieces: list[str]) -> web.StreamResponse:
        response = await self._begin()
        for piece in pieces:
            await response.write(self._chunk({"content": piece}))
        return response

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        return self._event(choices=[{"index": 0, "delta": delta, "finish_reason": finish_reason}])

    def _usage(self, completion: int) -> bytes:
        prompt = tokens.count_messages(self._body["messages"])
        if self._model == "sees":
            prompt += int(self._args[0]) * tokens.count_images(self._body["messages"])
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        return self._event(choices=[], usage=usage)

    def _event(self, **fields: object) -> bytes:
        chunk = {"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 1700000000}
        return f"data: {json.dumps({**chunk, 'model': self._body['model'], **fields})}\n\n".encode()


class _AnthropicAnswer(_Answer):
    """The same in Anthropic's words."""

    _folder = RECORDINGS / "anthropic"

    async def _give_overloaded(self) -> web.StreamResponse:
        response = await self._begin_with([])
        await response.write(self._overloaded())
        return response

    async def _give_overloaded_late(self) -> web.StreamResponse:
        response = await self._begin_with(_numbers(2))
        await response.write(self._overloaded())
        return response

    async def _give_thinks(self) -> web.StreamResponse:
        response = await self._begin_with([])
        for thought in _numbers(int(self._args[0])):
            await response.write(self._block_delta({"type": "thinking_delta", "thinking": thought}))
        await response.write(self._chunk({"content": "done"}) + self._end("end_turn", 1 + int(self._args[0])))
        return response

    async def _stream(self, pieces: list[str], *, pause: float = 0.0, silence: float = 0.0) -> web.StreamResponse:
        response = await self._begin()
        await asyncio.sleep(silence)
        await response.write(self._start())
        sent = pieces[: self._limit]
        for piece in sent:
            await asyncio.sleep(pause)
            await response.write(self._chunk({"content": piece}))
        await response.write(self._end("end_turn" if len(sent) == len(pieces) else "max_tokens", len(sent)))
        return response

    async def _begin_with(self, pieces: list[str]) -> web.StreamResponse:
        response = await self._begin()
        await response.write(self._start() + b"".join(self._chunk({"content": piece}) for piece in pieces))
        return response

    def _refuse(self, status: int) -> web.Response:
        key = self._request.headers.get("x-api-key", "")
        kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large"}
        kinds |= {429: "rate_limit_error", 500: "api_error", 529: "overloaded_error"}
        fault = {"type": kinds.get(status, "invalid_request_error"), "message": f"refused with {status} for {key}"}
        return web.json_response({"type": "error", "error": fault}, status=status)

    def _start(self) -> bytes:
        usage = {"input_tokens": self._prompt(), "cache_read_input_tokens": 0, "output_tokens": 1}
        message = {"id": "msg_scripted", "type": "message", "role": "assistant", "content": [], "usage": usage}
        block = {"type": "text", "text": ""}
        return (
            self._event(type="message_start", message={**message, "model": self._body["model"]})
            + self._event(type="content_block_start", index=0, content_block=block)
            + self._event(type="ping")
        )

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        if finish_reason:
            return self._event(type="message_delta", delta={"stop_reason": "end_turn"})
        return self._block_delta({"type": "text_delta", "text": delta["content"]})

    def _usage(self, completion: int) -> bytes:
        return self._event(type="message_delta", delta={}, usage={"output_tokens": completion})

    def _block_delta(self, delta: dict[str, str]) -> bytes:
        return self._event(type="content_block_delta", index=0, delta=delta)

    def _end(self, reason: str, completion: int) -> bytes:
        stop = {"stop_reason": reason, "stop_sequence": None}
        return (
            self._event(type="content_block_stop", index=0)
            + self._event(type="message_delta", delta=stop, usage={"output_tokens": completion})
            + self._event(type="message_stop")
        )

    def _overloaded(self) -> bytes:
        return self._event(type="error", error={"type": "overloaded_error", "message": "Overloaded"})

    def _prompt(self) -> int:
        return sum(len(json.dumps(message)) for message in self._body["messages"])

    def _event(self, **fields: object) -> bytes:
        return f"event: {fields['type']}\ndata: {json.dumps(fields)}\n\n".encode()


def _seen_in(url: str) -> str:
    """Return what an image of a data URL is: its format, size and middle colour, and whether it tells of its origin."""
    head, _comma, data = url.partition(",")
    assert head == "data:image/jpeg;base64", head
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
        middle = image.convert("RGB").getpixel((image.width // 2, image.height // 2))
        assert isinstance(middle, tuple)
        colour = ("red", "green", "blue")[middle.index(max(middle))]
        told = ", with metadata" if image.getexif() or "icc_profile" in image.info else ""
        return f"{image.format} {image.width}x{image.height} {colour}{told}"


def _numbers(count: int) -> list[str]:
    return [f"{number} " for number in range(1, count + 1)]


def _json(status: int, error: dict[str, Any]) -> web.Response:
    return web.json_response({"error": error}, status=status)


async def _wait_for_ever() -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


# --- as a process of its own ---


@dataclass(frozen=True)
class UpstreamProcess:
    """The provider in another process."""

    port: int

    @property
    def base_url(self) -> str:
        """What an account's base URL would be."""
        return f"http://127.0.0.1:{self.port}/v1"

    def requests(self) -> list[Seen]:
        """Return the requests it has seen so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/_requests") as answer:
            return [Seen(**seen) for seen in json.load(answer)]


@contextmanager
def upstream_process(*, pace: float = 0.0) -> Iterator[UpstreamProcess]:
    """Run the provider on a free port until the block ends."""
    command = [sys.executable, "-m", "tests.doubles.upstream", "--port", "0", "--pace", str(pace)]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield UpstreamProcess(port=int(process.stdout.readline()))
        finally:
            process.kill()


async def _main() -> None:
    parser = argparse.ArgumentParser(description="A scripted provider of models.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--pace", type=float, default=0.0)
    options = parser.parse_args()
    async with ScriptedUpstream(port=options.port, pace=options.pace) as upstream:
        sys.stdout.write(f"{upstream.port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
