"""Server-sent events as providers send them: cut anywhere, with any line end, and with JSON of any quality."""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

MAX_EVENT: Final = 1024 * 1024  # bytes; a provider's event has a few hundred
MAX_TOKENS: Final = 100_000_000  # docs/money.md's bound on a count; beyond it the upstream talks nonsense

_BOM: Final = b"\xef\xbb\xbf"
# Every pair of line ends, but for those whose end only the next byte would tell: an event is not kept waiting for it.
_BLANK_LINE: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class EventTooLongError(ValueError):
    """An event is longer than `MAX_EVENT`."""


class EventSplitter:
    """Cuts a stream of bytes into server-sent events, each with its blank line, wherever the network cut it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at_start = True

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Return the events that `data` completes. Raises EventTooLongError after those before the long one."""
        # What nearly every read is: one event, whole.
        if not self._buffer and not self._at_start and is_one_event(data):
            _check_length(len(data))
            return (data,)
        return self._split(data)

    def _split(self, data: bytes) -> Iterable[bytes]:
        self._buffer += data
        if self._at_start and not self._skip_byte_order_mark():
            return
        start, seen = 0, max(0, len(self._buffer) - len(data) - 3)
        try:
            while start < len(self._buffer) and (blank := _BLANK_LINE.search(self._buffer, max(start, seen))):
                end = blank.end()
                _check_length(end - start)
                event, start = bytes(self._buffer[start:end]), end
                yield event
            _check_length(len(self._buffer) - start)
        finally:
            del self._buffer[:start]

    def rest(self) -> bytes:
        """Return what came after the last blank line: an event without one, if the body has ended."""
        return bytes(self._buffer)

    def _skip_byte_order_mark(self) -> bool:
        """Return False while the first bytes may still become a byte order mark."""
        if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
            return False
        if self._buffer.startswith(_BOM):
            del self._buffer[: len(_BOM)]
        self._at_start = False
        return True


def is_one_event(data: bytes) -> bool:
    """Return whether bytes that begin an event are just that event, in the form that nearly every provider sends."""
    return data.endswith(b"\n\n") and data.find(b"\n\n") == len(data) - 2 and b"\r" not in data


def _check_length(length: int) -> None:
    if length > MAX_EVENT:
        raise EventTooLongError


def fields_of(raw: bytes) -> tuple[bytes, bytes]:
    """Return an event's name and its data, as the standard of server-sent events reads them."""
    if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 and b"\r" not in raw:
        return b"", raw[6:-2]  # the form that nearly every event has
    name, data = b"", []
    for line in _LINE_END.split(raw):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return name, b"\n".join(data).strip()


def load_json(data: bytes) -> Any:
    """Return what the JSON says, None if it is none. json reads what orjson refuses: lone surrogates, broken UTF-8."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            return json.loads(data.decode("utf-8", "replace"), strict=False)
        except (ValueError, RecursionError):
            return None


def mend(text: str) -> str:
    """Return `text` without what PostgreSQL and UTF-8 refuse: halves are joined, lone ones and NUL become U+FFFD."""
    if not text.isascii() and _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "\ufffd")


def as_dict(value: object) -> dict[str, Any]:
    """Return `value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_text(value: object) -> str:
    """Return `value` if it is text, else none."""
    return value if isinstance(value, str) else ""


def as_count(value: object) -> int | None:
    """Return `value` if it can be a count of tokens."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS
    return value if is_count and isinstance(value, int) else None
