"""A phone's client: it buffers bytes, decodes whole frames or events, and resumes at the character where it was cut."""

import json
from dataclasses import dataclass, field
from typing import Any

from tests.clients.raw import RawConnection, request_bytes


@dataclass
class Phone:
    """One answer as a phone has it so far, over as many connections as it takes."""

    port: int
    host: str
    token: str
    is_wxapp: bool
    text: str = ""
    message_id: str = ""
    receipt: dict[str, Any] = field(default_factory=dict)
    failure: dict[str, Any] = field(default_factory=dict)
    ended: bool = False
    taken: int = 0  # bytes of bodies

    def ask(self, *, cut_after: int | None = None, **params: Any) -> None:
        """Send a question, and read until the end, or until `cut_after` bytes of the body."""
        self._read(params, cut_after)

    def resume(self, *, cut_after: int | None = None) -> None:
        """Come back for what follows."""
        self._read({"message_id": self.message_id, "offset": len(self.text)}, cut_after)

    def resume_of(self, message_id: str, *, cut_after: int | None = None) -> None:
        """Read an answer that another asked for."""
        self.message_id = message_id
        self.resume(cut_after=cut_after)

    def _read(self, params: dict[str, Any], cut_after: int | None) -> None:
        target, headers, body = request_bytes("POST", {**params, "is_wxapp": int(self.is_wxapp)}, as_json=True)
        headers["Authorization"] = f"Bearer {self.token}"
        buffer = b""
        with RawConnection(self.port, self.host, timeout=60) as connection:
            connection.send("POST", target, headers=headers, body=body)
            connection.read_head()
            # Of a page, another script may read the headers; a mini-program's chunks tell it themselves.
            self.message_id = connection.headers.get("x-message-id", self.message_id)
            left = cut_after
            for chunk in connection.chunks():
                data = chunk.data if left is None else chunk.data[:left]
                self.taken += len(data)
                buffer = self._take(buffer + data)
                if left is not None and (left := left - len(chunk.data)) <= 0:
                    return

    def _take(self, buffer: bytes) -> bytes:
        """Read the whole frames or events in the buffer; return the rest."""
        *whole, rest = buffer.split(b"\r\n" if self.is_wxapp else b"\n\n")
        for part in whole:
            if part.startswith(b"event: error\ndata: "):
                self.failure = json.loads(part.removeprefix(b"event: error\ndata: "))
                self.ended = True
            elif self.is_wxapp:
                self._take_frame(part)
            else:
                self._take_event(part)
        return rest

    def _take_frame(self, frame: bytes) -> None:
        if frame.startswith(b"success: "):
            value = json.loads(frame.removeprefix(b"success: "))
            self.text += value["content"]
            self.receipt = value.get("receipt", self.receipt)
        elif frame == b"0":
            self.ended = True

    def _take_event(self, event: bytes) -> None:
        if event.startswith(b"event: receipt\ndata: "):
            self.receipt = json.loads(event.removeprefix(b"event: receipt\ndata: "))
        elif event == b"data: [DONE]":
            self.ended = True
        elif event.startswith(b"data: "):
            for choice in json.loads(event.removeprefix(b"data: "))["choices"]:
                self.text += choice["delta"].get("content") or ""
