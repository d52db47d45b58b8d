"""Secrets of tenants at rest: a text column that holds ciphertext and shows plain text to Python.

The keys are `settings.ENCRYPTION_KEYS`: the first encrypts, all of them decrypt. To rotate, put a new key in front,
restart, run `manage.py rotate_secrets`, then drop the old key.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import FieldError, ImproperlyConfigured
from django.db import models
from django.db.models.expressions import Expression


@lru_cache(maxsize=8)
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    if not keys:
        raise ImproperlyConfigured("ENCRYPTION_KEYS is empty: secrets can be neither stored nor read without a key")
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError as error:
        raise ImproperlyConfigured(
            "ENCRYPTION_KEYS: each key is 32 bytes in URL-safe base64 (44 characters)"
        ) from error


def _current() -> MultiFernet:
    return _fernet(tuple(settings.ENCRYPTION_KEYS))


def encrypt(text: str) -> str:
    """Return `text` encrypted with the first key; an empty text stays empty, so that "not set" needs no key."""
    return _current().encrypt(text.encode()).decode() if text else ""


def decrypt(ciphertext: str) -> str:
    """Return what was encrypted; raise ImproperlyConfigured if none of the keys opens it."""
    if not ciphertext:
        return ""
    try:
        return _current().decrypt(ciphertext).decode()
    except InvalidToken:
        # The chain is cut: the cause has nothing to add, and a traceback should not hold the ciphertext.
        raise ImproperlyConfigured("a stored secret opens with none of ENCRYPTION_KEYS: was a key dropped?") from None


def reencrypt(ciphertext: str) -> str:
    """Return the same secret under the first key."""
    return encrypt(decrypt(ciphertext))


if TYPE_CHECKING:
    _TextField = models.TextField[str, str]
else:
    _TextField = models.TextField  # cannot be subscripted at run time


class EncryptedTextField(_TextField):
    """Text that is encrypted in the database. It can be tested for NULL, and searched for in no other way."""

    def get_prep_value(self, value: Any) -> Any:
        """Encrypt on the way to the database."""
        return encrypt(value) if isinstance(value, str) else super().get_prep_value(value)

    def from_db_value(self, value: str | None, _expression: Expression, _connection: Any) -> str | None:
        """Decrypt on the way back."""
        return value if value is None else decrypt(value)

    def get_lookup(self, lookup_name: str) -> Any:
        """Refuse to compare: every encryption of one text differs, so a comparison would silently find nothing."""
        if lookup_name != "isnull":
            raise FieldError(f"{self.name} is encrypted and cannot be searched")
        return super().get_lookup(lookup_name)
