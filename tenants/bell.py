"""A bell for staff: rung when a tenant, or the operator, has a new notice, and heard by whoever watches in an admin.

It is a number in Redis that grows. Nothing depends on it: unheard, a notice is seen with the next page.
"""

from collections.abc import Iterable
from typing import Final

import redis
import structlog
from django.conf import settings
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

TIMEOUT: Final = 1.0  # seconds; a Redis that takes longer is away


def key() -> str:
    """Return the name of the hash that has each reader's number."""
    return f"banyan:bell:1:{settings.DATABASES['default']['NAME']}"


def reader(tenant_id: int | None) -> str:
    """Return the hash's field of a tenant's staff, of the operator's for None."""
    return "platform" if tenant_id is None else str(tenant_id)


def ring(tenant_ids: Iterable[int | None]) -> None:
    """Say, from any thread, that these have something new."""
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
    try:
        with client, client.pipeline(transaction=False) as pipe:
            for tenant_id in tenant_ids:
                pipe.hincrby(key(), reader(tenant_id), 1)
            pipe.execute()
    except (RedisError, OSError) as away:
        log.warning("bell_not_rung", fault=type(away).__name__)
