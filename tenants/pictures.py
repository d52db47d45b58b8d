"""A picture from anybody, decoded within bounds and drawn anew as JPEG, or refused.

What else was in its file (where it was taken, by which camera, a second file behind its end) is gone, and so is what is
not a picture at all: what is kept of it was written here.
"""

import io
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import Final

from PIL import Image, ImageOps

MEDIA_TYPE: Final = "image/jpeg"
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")

# A phone's largest pictures are decoded at a half or a quarter of their size; other formats have to be whole in memory.
MAX_JPEG_PIXELS: Final = 110_000_000
MAX_PIXELS: Final = 25_000_000
_QUALITIES: Final = (86, 70, 50, 30)
_BOMBS: Final = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# A decoded picture takes a hundred megabytes: so many at once in a process, whoever else waits.
_decoding = BoundedSemaphore(2)


class NoPictureError(Exception):
    """It is none, or none of the formats that are taken."""


class TooLargeError(Exception):
    """It has more than `limit` of a `measure`: "pixels", or "bytes" of what would be kept of it."""

    def __init__(self, measure: str, limit: int) -> None:
        super().__init__(measure, limit)
        self.measure = measure
        self.limit = limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """How a picture is kept: not beyond `edge` and `pixels`, or, without `pixels`, as a square of that edge.

    A square has the picture's middle, and may be larger than the picture was.
    """

    edge: int
    pixels: int = 0
    most_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What is kept of a picture: a JPEG."""

    data: bytes = field(repr=False)
    width: int
    height: int


def redraw(data: bytes, *, frame: Frame, formats: tuple[str, ...] = FORMATS) -> Drawn:
    """Return what is kept of a picture; raises NoPictureError, TooLargeError."""
    try:
        with _decoding, Image.open(io.BytesIO(data), formats=formats) as picture:
            drawn = _draw(picture, frame)
            kept = _encode(drawn, frame)
    except TooLargeError:
        raise
    except _BOMBS:
        raise TooLargeError("pixels", MAX_PIXELS) from None
    except Exception:  # noqa: BLE001  decoders fail in many ways, and each says that this is no picture
        raise NoPictureError from None
    return Drawn(data=kept, width=drawn.width, height=drawn.height)


def _draw(picture: Image.Image, frame: Frame) -> Image.Image:
    """Return the picture upright, on white, as its frame wants it; of a moving one its first moment."""
    is_jpeg = picture.format in {"JPEG", "MPO"}
    limit = MAX_JPEG_PIXELS if is_jpeg else MAX_PIXELS
    # Known from the head: nothing was decoded yet.
    if picture.width * picture.height > limit:
        raise TooLargeError("pixels", limit)
    if is_jpeg:
        picture.draft("RGB", _wanted_size(picture.width, picture.height, frame))
    picture.load()
    upright = ImageOps.exif_transpose(picture)
    if not frame.pixels:
        upright = _middle(upright)
    size = _kept_size(upright.width, upright.height, frame)
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


def _middle(picture: Image.Image) -> Image.Image:
    """Return the largest square in the middle of a picture."""
    edge = min(picture.width, picture.height)
    left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
    return picture.crop((left, top, left + edge, top + edge))


def _kept_size(width: int, height: int, frame: Frame) -> tuple[int, int]:
    """Return the size in which a picture is kept: smaller in both directions alike where it is too large."""
    if not frame.pixels:
        return frame.edge, frame.edge
    scale = min(1.0, frame.edge / max(width, height), (frame.pixels / (width * height)) ** 0.5)
    return max(1, int(width * scale)), max(1, int(height * scale))


def _wanted_size(width: int, height: int, frame: Frame) -> tuple[int, int]:
    """Return the size below which a picture must not be decoded: a square is cut out of it afterwards."""
    if frame.pixels:
        return _kept_size(width, height, frame)
    scale = min(1.0, frame.edge / min(width, height))
    return max(1, int(width * scale)), max(1, int(height * scale))


def _encode(picture: Image.Image, frame: Frame) -> bytes:
    # What a drawing still knows of its file would go along: comments do.
    picture.info.clear()
    for quality in _QUALITIES:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= frame.most_bytes:
            return file.getvalue()
    raise TooLargeError("bytes", frame.most_bytes)
