"""What a recorded stream says, read in the plainest way: the tests' own measure, not the product's parser."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "chat" / "tests" / "recordings"


@dataclass(frozen=True)
class Recording:
    """A recorded stream: its bytes, and the chunks in them."""

    data: bytes

    @property
    def events(self) -> list[bytes]:
        """The events with their blank lines, without [DONE]."""
        whole = [event + b"\n\n" for event in self.data.split(b"\n\n") if event]
        return [event for event in whole if event != b"data: [DONE]\n\n"]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The chunks, parsed."""
        return [json.loads(event.removeprefix(b"data: ")) for event in self.events]

    @property
    def text(self) -> str:
        """The text that a user is shown."""
        return "".join(
            choice["delta"].get("content") or "" for chunk in self.chunks for choice in chunk.get("choices", [])
        )

    @property
    def usage(self) -> dict[str, Any]:
        """The last usage that was reported."""
        return dict([chunk["usage"] for chunk in self.chunks if chunk.get("usage")][-1])

    @property
    def shown(self) -> bytes:
        """The events that an H5 page gets: all but the one that only reports usage, which it did not ask for."""
        pairs = zip(self.events, self.chunks, strict=True)
        return b"".join(event for event, chunk in pairs if chunk.get("choices") or not chunk.get("usage"))


def recording(name: str) -> Recording:
    """Return the recording of that name, from its .sse or .jsonl file."""
    plain = FOLDER / f"{name}.sse"
    if plain.exists():
        return Recording(plain.read_bytes())
    lines = (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()[1:]
    return Recording(b"".join(json.loads(line)["data"].encode() for line in lines))
