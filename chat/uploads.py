"""A file from anywhere, made into what may be kept and shown to a model, or refused: a picture or a text.

A picture is decoded and drawn anew as JPEG (`tenants.pictures`). Its area is bounded, since models bill by it: what a
hold freezes for an image has to cover every one (docs/adr, "Attachments lie in the database").
"""

import codecs
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final

from chat import refusals
from chat.models import Attachment
from tenants import pictures
from tenants.errors import ProductError

MAX_BYTES: Final = 8 * 1024 * 1024
MAX_TEXT_BYTES: Final = 1024 * 1024
MAX_TEXT_CHARACTERS: Final = 100_000
MAX_NAME_CHARACTERS: Final = 120

# What is kept: 1.5 million pixels are 1,900 patches of 28 by 28, as models with the smallest patches count them.
KEPT_PIXELS: Final = 1_500_000
KEPT_BYTES: Final = 1024 * 1024
_FRAME: Final = pictures.Frame(edge=2048, pixels=KEPT_PIXELS, most_bytes=KEPT_BYTES)

_PICTURE: Final = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP", re.DOTALL)

_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# No text has these; a tab, the ends of lines and of pages it may have.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What is kept of a file."""

    kind: Attachment.Kind
    name: str
    media_type: str
    data: bytes = field(default=b"", repr=False)
    text: str = field(default="", repr=False)
    width: int = 0
    height: int = 0

    @property
    def size(self) -> int:
        """How many bytes are kept."""
        return len(self.data) or len(self.text.encode())


def read(*, name: str, data: bytes) -> Upload:
    """Return what is kept of a file.

    Raises ProductError 10001: "attachment_too_large", "attachment_not_taken".
    """
    if len(data) > MAX_BYTES:
        raise refusals.attachment_too_large("bytes", limit=MAX_BYTES)
    return _read_picture(name, data) if _PICTURE.match(data) else _read_text(name, data)


def clean_name(name: str) -> str:
    """Return a file's name as it may be shown, and told to a model: one line, without a path."""
    last = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(letter for letter in last if unicodedata.category(letter)[0] != "C")
    shown = " ".join(shown.replace("<", "").replace(">", "").replace('"', "").split())
    stem, dot, ending = shown.rpartition(".")
    if len(shown) > MAX_NAME_CHARACTERS:
        shown = f"{stem[: MAX_NAME_CHARACTERS - 12]}{dot}{ending[:11]}" if stem else shown[:MAX_NAME_CHARACTERS]
    return shown or "file"


def _read_picture(name: str, data: bytes) -> Upload:
    try:
        drawn = pictures.redraw(data, frame=_FRAME)
    except pictures.TooLargeError as refused:
        raise refusals.attachment_too_large(refused.measure, limit=refused.limit) from None
    except pictures.NoPictureError:
        raise refusals.attachment_not_taken() from None
    return Upload(
        kind=Attachment.Kind.IMAGE,
        name=name,
        media_type=pictures.MEDIA_TYPE,
        data=drawn.data,
        width=drawn.width,
        height=drawn.height,
    )


# --- texts ---


def _read_text(name: str, data: bytes) -> Upload:
    if len(data) > MAX_TEXT_BYTES:
        # So large, a file that is no text is not taken, whatever its size.
        raise refusals.attachment_not_taken() if b"\x00" in data[:4096] else _too_long()
    text = _decode(data).replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip() or _CONTROL.search(text):
        raise refusals.attachment_not_taken()
    if len(text) > MAX_TEXT_CHARACTERS:
        raise _too_long()
    return Upload(kind=Attachment.Kind.TEXT, name=name, media_type="text/plain", text=text)


def _too_long() -> ProductError:
    return refusals.attachment_too_large("characters", limit=MAX_TEXT_CHARACTERS)


def _decode(data: bytes) -> str:
    """Return the text of a file: UTF-8, UTF-16 where it says so, else GB18030, as older Chinese programs write."""
    encodings = ("utf-16",) if data.startswith(_UTF_16) else ("utf-8-sig", "gb18030")
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise refusals.attachment_not_taken()
