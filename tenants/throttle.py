"""Counting what may be done only so often: guesses at a password, guests from one address.

Fixed windows in Redis, which is a hint and no ledger: where it is away everybody is let through, and a log line says
so.
"""

import hashlib
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from django.core.cache import cache
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from redis.exceptions import RedisError

from tenants.errors import ErrorCode, ProductError

logger = structlog.get_logger(__name__)


class Counted(NamedTuple):
    """How a window stands."""

    used: int
    limit: int
    reset_at: datetime


def count(*, what: str, who: str, limit: int, seconds: int) -> Counted | None:
    """Count one `what` of `who`; raise ProductError QUOTA "too_many_tries" beyond `limit` in a window of `seconds`.

    `who` goes into Redis as a digest: it may be a phone number or an address. Returns how the window stands; None
    where Redis is away.
    """
    used = note(what=what, who=who, seconds=seconds)
    if used is None:
        return None
    _number, ends_at = _window(seconds)
    if used > limit:
        raise ProductError(
            ErrorCode.QUOTA,
            _("Too many tries. Please wait a while and try again."),
            type="too_many_tries",
            scope=what,
            action="wait",
            reset_at=ends_at,
            used=limit,
            limit=limit,
        )
    return Counted(used, limit, ends_at)


def note(*, what: str, who: str, seconds: int) -> int | None:
    """Count one `what` of `who`, without a limit; return how many the window has by now, None where Redis is away."""
    key = _key(what, who, seconds)
    try:
        cache.add(key, 0, timeout=seconds)
        return int(cache.incr(key))
    except (RedisError, ValueError) as away:  # ValueError: it expired between the two
        logger.warning("throttle_away", what=what, fault=type(away).__name__)
        return None


def once(*, what: str, who: str, seconds: int) -> bool:
    """Say whether this is the first time within `seconds`; True where Redis is away."""
    try:
        return bool(cache.add(f"once:{what}:{hashlib.sha256(who.encode()).hexdigest()}", 1, timeout=seconds))
    except RedisError as away:
        logger.warning("throttle_away", what=what, fault=type(away).__name__)
        return True


def noted(*, what: str, who: str, seconds: int) -> int:
    """Return how many `what` of `who` the window has; 0 where Redis is away."""
    try:
        return int(cache.get(_key(what, who, seconds), 0))
    except RedisError as away:
        logger.warning("throttle_away", what=what, fault=type(away).__name__)
        return 0


def _key(what: str, who: str, seconds: int) -> str:
    number, _ends_at = _window(seconds)
    return f"throttle:{what}:{number}:{hashlib.sha256(who.encode()).hexdigest()}"


def _window(seconds: int) -> tuple[int, datetime]:
    now = timezone.now()
    number = int(now.timestamp()) // seconds
    return number, now + timedelta(seconds=(number + 1) * seconds - now.timestamp())
