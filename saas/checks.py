"""Settings that would be unsafe in production, found before anyone is served.

`manage.py check --deploy` runs all of them, and `manage.py up` and the containers refuse to start on an error.
Those that no mode may have (E003, E004) are found by every command.

    saas.E001  DEBUG is on
    saas.E002  the secret key is the default one, or too short to be random
    saas.E003  ATOMIC_REQUESTS: a transaction would stay open while an answer streams
    saas.E004  CONN_MAX_AGE: a connection would stay with each thread, beside the pool
    saas.E005  no encryption key, so that tenants' secrets could not be stored
    saas.E006  an encryption key that is none
    saas.E007  another database than PostgreSQL, on whose locks and triggers the ledger stands
"""

from collections.abc import Iterator
from typing import Any, Final

from cryptography.fernet import Fernet
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register

SHORTEST_SECRET_KEY: Final = 50  # as Django's own security.W009


@register(Tags.security, deploy=True)
def check_debug(**_kwargs: Any) -> list[CheckMessage]:
    """Refuse DEBUG: its error pages show settings and other people's data."""
    if not settings.DEBUG:
        return []
    return [Error("DEBUG is on.", hint="Remove DEBUG from the environment and from .env.", id="saas.E001")]


@register(Tags.security, deploy=True)
def check_secret_key(**_kwargs: Any) -> list[CheckMessage]:
    """Refuse a key that others know or could guess: it signs sessions."""
    key = settings.SECRET_KEY
    if key != settings.INSECURE_SECRET_KEY and len(key) >= SHORTEST_SECRET_KEY:
        return []
    hint = f"Set SECRET_KEY, or SECRET_KEY_FILE, to {SHORTEST_SECRET_KEY} or more random characters."
    return [Error("SECRET_KEY is not set, or too short to be random.", hint=hint, id="saas.E002")]


@register(Tags.security, deploy=True)
def check_encryption_keys(**_kwargs: Any) -> list[CheckMessage]:
    """Refuse missing and malformed keys: app secrets and merchants' keys are stored with them."""
    make = "python -c 'from cryptography.fernet import Fernet as F; print(F.generate_key().decode())'"
    if not settings.ENCRYPTION_KEYS:
        hint = f"Set ENCRYPTION_KEYS, or ENCRYPTION_KEYS_FILE; {make} makes one."
        return [Error("ENCRYPTION_KEYS is not set.", hint=hint, id="saas.E005")]
    bad = [number for number, key in enumerate(settings.ENCRYPTION_KEYS, start=1) if not _is_fernet_key(key)]
    return [Error(f"ENCRYPTION_KEYS: key {number} is not a key.", hint=make, id="saas.E006") for number in bad]


@register(Tags.compatibility)  # with the tag "database" it would run only where a database may be asked
def check_database_settings(**_kwargs: Any) -> list[CheckMessage]:
    """Refuse database settings that do not fit async views, and databases that cannot hold the ledger."""
    return [problem for alias, database in settings.DATABASES.items() for problem in _of_database(alias, database)]


def _of_database(alias: str, database: dict[str, Any]) -> Iterator[CheckMessage]:
    if database.get("ATOMIC_REQUESTS"):
        yield Error(f"ATOMIC_REQUESTS is on for {alias}.", hint="Use transaction.atomic().", id="saas.E003")
    if database.get("CONN_MAX_AGE") != 0:
        yield Error(f"CONN_MAX_AGE of {alias} is not 0.", hint="The pool keeps connections.", id="saas.E004")
    if database.get("ENGINE") != "saas.postgres":
        yield Error(f"The database {alias} is not PostgreSQL.", id="saas.E007")


def _is_fernet_key(key: str) -> bool:
    try:
        Fernet(key)
    except ValueError:
        return False
    return True
