"""The message push of WeChat's mini-programs: is a message WeChat's, and what does it say.

    plain    signed by SHA-1 over token, time and nonce: the body is not covered, so the message is a hint only
    safe     encrypted with AES, and the signature covers the ciphertext: the message is WeChat's word

Source: https://developers.weixin.qq.com/miniprogram/dev/framework/server-ability/message-push.html
"""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree as ET  # see _read_xml

import orjson
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC

from billing.payments.provider import NotificationRefusedError

# A signature is good for so long, either way.
WINDOW_SECONDS: Final = 300
MOST_BYTES: Final = 64 * 1024

_KEY_LENGTH: Final = 43  # of base64, for 32 bytes
_BLOCK: Final = 32  # what WeChat pads to, which is more than AES wants
_SALT: Final = 16
_LENGTH: Final = 4


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message whose signature was right. `app_id` is empty where the message is plain and so not proved."""

    said: Mapping[str, Any]
    app_id: str


def read(*, body: bytes, query: Mapping[str, str], token: str, key: str) -> Message:
    """Verify and read a message; raise NotificationRefusedError.

    With a `key` only encrypted messages are believed: a plain one would be a way round it.
    """
    if len(body) > MOST_BYTES:
        raise NotificationRefusedError("too long")
    outer = _read(body)
    sealed = outer.get("Encrypt")
    if sealed is None and not key:
        verify(query, token=token)
        return Message(said=outer, app_id="")
    if not isinstance(sealed, str) or not key:
        raise NotificationRefusedError("not encrypted as it was agreed on")
    verify(query, token=token, sealed=sealed)
    plain, app_id = _unseal(sealed, key)
    return Message(said=_read(plain), app_id=app_id)


def verify(query: Mapping[str, str], *, token: str, sealed: str = "") -> None:
    """Raise NotificationRefusedError unless WeChat signed within the window; an empty token verifies nothing."""
    stamp, nonce = query.get("timestamp", ""), query.get("nonce", "")
    if not stamp.isascii() or not stamp.isdigit() or abs(time.time() - int(stamp)) > WINDOW_SECONDS:
        raise NotificationRefusedError("outside the window of time")
    parts = sorted([token, stamp, nonce, *([sealed] if sealed else [])])
    wanted = hashlib.sha1("".join(parts).encode()).hexdigest()  # noqa: S324  # WeChat's choice
    given = query.get("msg_signature" if sealed else "signature", "")
    if not token or not nonce or not hmac.compare_digest(wanted.encode(), given.encode()):
        raise NotificationRefusedError("not signed by WeChat")


def _unseal(sealed: str, key: str) -> tuple[bytes, str]:
    """Return the message in a ciphertext, and the app id that it was written for."""
    try:
        secret = base64.b64decode(f"{key}=", validate=True) if len(key) == _KEY_LENGTH else b""
        decryptor = Cipher(AES256(secret), CBC(secret[:16])).decryptor()
        plain = decryptor.update(base64.b64decode(sealed, validate=True)) + decryptor.finalize()
        padding = plain[-1]
        content = plain[_SALT:-padding]
        length = int.from_bytes(content[:_LENGTH], "big")
        message, app_id = content[_LENGTH : _LENGTH + length], content[_LENGTH + length :].decode()
    except (binascii.Error, IndexError, ValueError):
        raise NotificationRefusedError("not sealed with this key") from None
    if not 1 <= padding <= _BLOCK or len(message) != length or not app_id:
        raise NotificationRefusedError("not sealed with this key")
    return message, app_id


def _read(body: bytes) -> dict[str, Any]:
    """Return what a message says, whose form, JSON or XML, is a setting at WeChat."""
    try:
        said = _read_xml(body.decode()) if body.lstrip()[:1] == b"<" else orjson.loads(body)
    except (ValueError, ET.ParseError) as fault:
        raise NotificationRefusedError(f"not readable: {type(fault).__name__}") from None
    if not isinstance(said, dict):
        raise NotificationRefusedError("not readable")
    return said


def _read_xml(text: str) -> Any:
    """Return a flat or nested element as texts by name.

    Entities are what makes XML dangerous, and WeChat sends none: a document that could define one is refused.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise NotificationRefusedError("XML with definitions")
    return _value(ET.fromstring(text))  # noqa: S314  # as above, and bounded in size


def _value(element: ET.Element) -> Any:
    return {child.tag: _value(child) for child in element} if len(element) else (element.text or "").strip()
