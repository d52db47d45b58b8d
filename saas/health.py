"""`GET /healthz`: can a chat be served? Asked by the launcher, by load balancers, by compose."""

from collections.abc import Callable

from django.core.cache import cache
from django.db import Error as DatabaseError
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe
from redis.exceptions import RedisError

from chat.models import ModelOffer
from chat.routes import available
from tenants import scope


class NotReadyError(RuntimeError):
    """Something that a chat needs is not there yet."""


@require_safe
def healthz(_request: HttpRequest) -> JsonResponse:
    """Answer 200 when a chat can be served, else 503 with the names of what is missing; any host may ask.

    The query for offers is also the one that asks whether the database is there and migrated.
    """
    needed: dict[str, Callable[[], None]] = {"database": _offers_exist, "redis": _ping_redis}
    found = {name: _state(check) for name, check in needed.items()}
    ok = all(state == "ok" for state in found.values())
    return JsonResponse({"status": "ok" if ok else "unavailable", **found}, status=200 if ok else 503)


def _state(check: Callable[[], None]) -> str:
    """Return "ok", or what is wrong in words that tell a stranger nothing of our addresses."""
    try:
        check()
    except NotReadyError as missing:
        return str(missing)
    except (DatabaseError, RedisError, OSError):
        return "unreachable"
    return "ok"


def _offers_exist() -> None:
    with scope.platform("whether any tenant can chat"):
        if not available(ModelOffer.objects.all()).exists():
            raise NotReadyError("no model offer")


def _ping_redis() -> None:
    cache.get("healthz")
