"""Values to bytes, in both framings of an answer, and to the events of a WebSocket.

Pure functions; the rules are the protocol's, docs/protocol.md.

Mini-program frames are read by clients that look for two words anywhere in a network chunk, the ones that
`_WORDS` names. So these words occur in a frame's own prefix and nowhere else.
"""

import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from typing import Any

MAX_ESCAPED = 480  # bytes of escaped text in one mini-program frame

# The second letter is the one to escape. The first may be the last hex digit of an escape before it ("\u4e0e" + "rror"
# from the text "与rror"); the second never is part of one, as an escape's letter stands behind a backslash.
_WORDS = (("error", "e\\u0072ror"), ("success", "s\\u0075ccess"))

# --- mini-program ---

HEARTBEAT = b'success: {"content":""}\r\n'
END = b"0\r\n\r\n"


def take_frame(text: str) -> tuple[bytes, str]:
    """Return a frame with as much of `text` as one may hold, and the text that is left.

    `text` holds no lone surrogates, so cutting between its characters splits no pair.
    """
    head = text[:MAX_ESCAPED]
    if len(escaped := _escape(head)) > MAX_ESCAPED:
        fitting = bisect_right(range(1, len(head)), MAX_ESCAPED, key=lambda end: len(_escape(head[:end])))
        head = head[:fitting]
        escaped = _escape(head)
    return b'success: {"content":"%b"}\r\n' % escaped.encode("ascii"), text[len(head) :]


def text_frames(text: str) -> list[bytes]:
    """Return the frames that hold `text`; none for an empty one."""
    frames = []
    while text:
        frame, text = take_frame(text)
        frames.append(frame)
    return frames


def first_frame(message_id: str, conversation_id: str) -> bytes:
    """Return the frame that opens an answer."""
    return _content_frame({"message_id": message_id, "conversation_id": conversation_id})


def receipt_frame(receipt: Mapping[str, Any]) -> bytes:
    """Return the frame that says what the answer cost, the last before `END`."""
    return _content_frame({"receipt": receipt})


def error_frame(body: Mapping[str, Any]) -> bytes:
    """Return the frame that refuses or breaks off; nothing may follow it, `END` neither."""
    return b"event: error\ndata: %b\r\n" % _json(body)


def _content_frame(more: Mapping[str, Any]) -> bytes:
    return b"success: %b\r\n" % _json({"content": "", **more})


# --- H5 ---

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"


def chunk_event(text: str, *, message_id: str, model: str, created: int, finish_reason: str | None = None) -> bytes:
    """Return an OpenAI chunk for text that is replayed, or that a provider of another dialect sent.

    `created` is in seconds of Unix time.
    """
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish_reason}
    chunk = {"id": message_id, "object": "chat.completion.chunk", "created": created, "model": model}
    return b"data: %b\n\n" % _json({**chunk, "choices": [choice]})


def receipt_event(receipt: Mapping[str, Any]) -> bytes:
    """Return the event that says what the answer cost, the last before `DONE`."""
    return b"event: receipt\ndata: %b\n\n" % _json(receipt)


def error_event(body: Mapping[str, Any]) -> bytes:
    """Return the event that refuses or breaks off; nothing may follow it, `DONE` neither."""
    return b"event: error\ndata: %b\n\n" % _json(body)


# --- WebSocket ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """The events about one request on a WebSocket: each names the answer, and the client's own `ref`, if it has them.

    The error object has a `type` of its own, so what an event is stands in `event`.
    """

    message_id: str = ""
    ref: str = ""

    def started(self, conversation_id: str) -> str:
        """Return the event that opens an answer, at once."""
        return self._event("started", conversation_id=conversation_id)

    def text(self, text: str) -> str:
        """Return the event that carries text."""
        return self._event("text", content=text)

    def heartbeat(self) -> str:
        """Return what fills a silence."""
        return self._event("heartbeat")

    def receipt(self, receipt: Mapping[str, Any]) -> str:
        """Return the event that says what the answer cost, the last before `end`."""
        return self._event("receipt", receipt=receipt)

    def end(self) -> str:
        """Return the event that ends a whole answer."""
        return self._event("end")

    def failure(self, body: Mapping[str, Any]) -> str:
        """Return the event that refuses or breaks off; nothing may follow it, `end` neither."""
        return self._event("error", **body)

    def stopping(self, *, is_running: bool) -> str:
        """Return the answer to a request to stop; False where there was nothing left to stop."""
        return self._event("stopping", running=is_running)

    def pong(self) -> str:
        """Return the answer to a ping."""
        return self._event("pong")

    def _event(self, event: str, **more: Any) -> str:
        known = {"message_id": self.message_id, "ref": self.ref}
        value = {"event": event, **{name: value for name, value in known.items() if value}, **more}
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


# --- both framings ---


def _json(value: Mapping[str, Any]) -> bytes:
    """Return ASCII JSON without blanks and without the two words, in keys or in values.

    What JSON does not know, such as a lazy translation or a time, goes in as its text.
    """
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str)
    return _without_words(text).encode("ascii")


def _escape(text: str) -> str:
    """Return `text` as it stands between the quotes of a JSON string in a frame."""
    return _without_words(encode_basestring_ascii(text)[1:-1])


def _without_words(escaped: str) -> str:
    for word, harmless in _WORDS:
        while word in escaped:  # more than once: "successuccess" holds the word twice, with one letter in common
            escaped = escaped.replace(word, harmless)
    return escaped
