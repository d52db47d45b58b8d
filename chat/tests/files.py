"""Files for tests, made here, and uploaded as a client does."""

import io
import struct
import zlib
from typing import Any
from uuid import UUID

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from PIL import Image

from chat import attachments
from tenants import scope
from tenants.models import EndUser


def picture(
    width: int = 40, height: int = 30, colour: Any = (208, 32, 32), *, form: str = "PNG", mode: str = "RGB", **more: Any
) -> bytes:
    """Return a picture of one colour."""
    file = io.BytesIO()
    Image.new(mode, (width, height), colour).save(file, form, **more)
    return file.getvalue()


def noise(width: int, height: int, *, form: str = "PNG") -> bytes:
    """Return a picture that no format makes small."""
    file = io.BytesIO()
    Image.effect_noise((width, height), 200).convert("RGB").save(file, form)
    return file.getvalue()


def head_of_png(width: int, height: int) -> bytes:
    """Return a few bytes that say they are a picture of that size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def upload(client: Client, name: str, data: bytes) -> Any:
    """Return the answer to a file that a client uploads."""
    return client.post("/api/chat/attachments", {"file": SimpleUploadedFile(name, data)})


def attach(user: EndUser, name: str, data: bytes) -> UUID:
    """Return the id of a file that a user has uploaded."""
    with scope.tenant(user.tenant_id):
        return attachments.keep(user=user, name=name, data=data).pk
