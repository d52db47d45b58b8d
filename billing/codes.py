"""How a redeem code is written, and what it is looked up by. Invitation codes are written alike, but shorter.

A code is sixteen characters drawn from thirty (78 bits), shown in groups of four. Capitals, blanks and dashes make no
difference to who types it, nor does the full width that a Chinese keyboard may give it; a pasted link stands for the
code at its end.

It is stored encrypted, since staff export it, and found by a keyed digest: a stolen dump of the database holds neither
a code nor what would test a guess at one. The digest's key comes from settings.SECRET_KEY; codes from before that was
changed are found while the old one stands in settings.SECRET_KEY_FALLBACKS.
"""

import re
import secrets
import unicodedata
from typing import Final

from django.conf import settings
from django.utils.crypto import salted_hmac

# No 0 and O, 1, I and L, nor U, which reads as V.
ALPHABET: Final = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH: Final = 16
LINK: Final = "/r/"

_CODE: Final = re.compile(f"[{ALPHABET}]+")
_BETWEEN: Final = re.compile(r"[\W_]")
_AFTER_PATH: Final = re.compile(r"[?#].*", re.DOTALL)
_SALT: Final = "billing.codes"


def new_code(*, length: int = LENGTH) -> str:
    """Return a fresh code, as it is stored."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def normal(typed: str, *, length: int = LENGTH, link: str = LINK) -> str | None:
    """Return the code that a person typed or pasted, as it is stored; None for what cannot be one."""
    last = _AFTER_PATH.sub("", typed.rpartition(link)[2])
    text = _BETWEEN.sub("", unicodedata.normalize("NFKC", last)).upper()
    return text if len(text) == length and _CODE.fullmatch(text) else None


def grouped(code: str) -> str:
    """Return a code as people are shown it: XXXX-XXXX-XXXX-XXXX."""
    return "-".join(code[start : start + 4] for start in range(0, len(code), 4))


def digest_of(code: str) -> str:
    """Return what a new code will be found by."""
    return _digest(code, settings.SECRET_KEY)


def digests_of(code: str) -> list[str]:
    """Return what a code may be stored under: by the present key, or by one before it."""
    return [_digest(code, key) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)]


def _digest(code: str, key: str | bytes) -> str:
    """HMAC-SHA256 under a key made of the salt and `key`."""
    return salted_hmac(_SALT, code, secret=key, algorithm="sha256").hexdigest()
