"""A file from anywhere, made into what may be kept and shown to a model, or refused: a picture or a text.

A picture is decoded and drawn anew as JPEG: what else was in its file (where it was taken, by which camera, a second
file behind its end) is gone, and so is what is not a picture at all. Its area is bounded, since models bill by it: what
a hold freezes for an image has to cover every one (docs/adr, "Attachments lie in the database").
"""

import codecs
import io
import re
import unicodedata
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import Final

from PIL import Image, ImageOps

from chat import refusals
from chat.models import Attachment
from tenants.errors import ProductError

MAX_BYTES: Final = 8 * 1024 * 1024
MAX_TEXT_BYTES: Final = 1024 * 1024
MAX_TEXT_CHARACTERS: Final = 100_000
MAX_NAME_CHARACTERS: Final = 120

# A phone's largest pictures are decoded at a half or a quarter of their size; other formats have to be whole in memory.
MAX_JPEG_PIXELS: Final = 110_000_000
MAX_PIXELS: Final = 25_000_000
# What is kept: 1.5 million pixels are 1,900 patches of 28 by 28, as models with the smallest patches count them.
KEPT_EDGE: Final = 2048
KEPT_PIXELS: Final = 1_500_000
KEPT_BYTES: Final = 1024 * 1024
_QUALITIES: Final = (86, 70, 50, 30)
_JPEG: Final = "image/jpeg"

_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")
_PICTURE: Final = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP", re.DOTALL)
_BOMBS: Final = (Image.DecompressionBombError, Image.DecompressionBombWarning)

_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# No text has these; a tab, the ends of lines and of pages it may have.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")

# A decoded picture takes a hundred megabytes: so many at once in a process, whoever else waits.
_decoding = BoundedSemaphore(2)


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


# --- pictures ---


def _read_picture(name: str, data: bytes) -> Upload:
    try:
        with _decoding, Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            drawn = _draw(picture)
            kept = _encode(drawn)
    except ProductError:
        raise
    except _BOMBS:
        raise refusals.attachment_too_large("pixels", limit=MAX_PIXELS) from None
    except Exception:  # noqa: BLE001  decoders fail in many ways, and each says that this is no picture
        raise refusals.attachment_not_taken() from None
    return Upload(
        kind=Attachment.Kind.IMAGE, name=name, media_type=_JPEG, data=kept, width=drawn.width, height=drawn.height
    )


def _draw(picture: Image.Image) -> Image.Image:
    """Return the picture upright, on white, no larger than is kept; of a moving one its first moment."""
    is_jpeg = picture.format in {"JPEG", "MPO"}
    limit = MAX_JPEG_PIXELS if is_jpeg else MAX_PIXELS
    # Known from the head: nothing was decoded yet.
    if picture.width * picture.height > limit:
        raise refusals.attachment_too_large("pixels", limit=limit)
    if is_jpeg:
        picture.draft("RGB", _kept_size(picture.width, picture.height))
    picture.load()
    upright = ImageOps.exif_transpose(picture)
    size = _kept_size(upright.width, upright.height)
    if upright.mode in {"P", "LA", "PA", "RGBA", "La", "RGBa"}:
        # Of a see-through picture the paper behind it is white.
        upright = upright.convert("RGBA").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        paper = Image.new("RGB", size, "white")
        paper.paste(upright, mask=upright.getchannel("A"))
        return paper
    if upright.mode.startswith("I"):
        # Sixteen bits of grey: eight are enough.
        upright = upright.point(lambda value: value / 256).convert("L")
    return upright.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _kept_size(width: int, height: int) -> tuple[int, int]:
    """Return the size in which a picture is kept: smaller in both directions alike where it is too large."""
    scale = min(1.0, KEPT_EDGE / max(width, height), (KEPT_PIXELS / (width * height)) ** 0.5)
    return max(1, int(width * scale)), max(1, int(height * scale))


def _encode(picture: Image.Image) -> bytes:
    # What a drawing still knows of its file would go along: comments do.
    picture.info.clear()
    for quality in _QUALITIES:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= KEPT_BYTES:
            return file.getvalue()
    raise refusals.attachment_too_large("bytes", limit=KEPT_BYTES)


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
