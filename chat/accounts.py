"""Upstream accounts as people look after them: a test of the connection, and how each one fares at the moment."""

import asyncio
import time
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

import structlog
from django.conf import settings
from redis import Redis
from redis.exceptions import RedisError

from chat.events import Delta, Failed, FailureKind
from chat.models import ModelOffer, ModelRoute, UpstreamAccount
from chat.routes import target_name, target_of
from chat.upstream import client, pool, sharing
from chat.upstream.base import ChatRequest, UpstreamTarget
from chat.upstream.health import Health, Report, health_of

log = structlog.get_logger(__name__)

# A test is a short question under the account's own rules and limits, but for these, in seconds.
TEST_SECONDS: Final = 20.0
TEST_TOKENS: Final = 16
_QUESTION: Final = ({"role": "user", "content": "Say OK."},)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How a test went: with `failure` and the HTTP status of a refusal, or with the time to the first token."""

    model: str
    failure: FailureKind | None = None
    status: int = 0
    first_token_ms: int = 0


def try_account(account: UpstreamAccount) -> Trial | None:
    """Ask an account a short question, as a chat would; None where no model is known to ask.

    Costs the provider's price of a few tokens. Tells nothing of the provider's words, which a tenant's own URL could
    make into a window on whatever answers there. Must not run on an event loop, nor in a transaction.
    """
    model = account.test_model or _model_of_an_offer(account)
    if not model:
        return None
    target = target_of(account, model)
    timeouts = replace(target.timeouts, first_token=TEST_SECONDS, total=TEST_SECONDS)
    trial = asyncio.run(_try(replace(target, timeouts=timeouts)))
    log.info("upstream_account_tried", account=account.pk, model=target.model, failure=trial.failure or "")
    return trial


def _model_of_an_offer(account: UpstreamAccount) -> str:
    offer = ModelOffer.objects.filter(account=account).order_by("pk").first()
    if offer is not None:
        return offer.upstream_model
    route = ModelRoute.objects.filter(account=account).select_related("offer").order_by("pk").first()
    return (route.upstream_model or route.offer.upstream_model) if route else ""


async def _try(target: UpstreamTarget) -> Trial:
    began = time.monotonic()
    request = ChatRequest(messages=_QUESTION, max_tokens=TEST_TOKENS)
    try:
        async with aclosing(pool.DIALECTS[target.dialect](target).stream(request)) as batches:
            async for batch in batches:
                if any(isinstance(event, Delta) and event.output for event in batch):
                    return Trial(model=target.model, first_token_ms=round((time.monotonic() - began) * 1000))
                if isinstance(failed := batch[-1], Failed):
                    return Trial(model=target.model, failure=failed.kind, status=failed.status)
    finally:
        await client.close()
    return Trial(model=target.model, failure=FailureKind.EMPTY)


def health_of_accounts(accounts: Iterable[UpstreamAccount]) -> tuple[dict[int, Health], bool]:
    """Return how accounts fare over all processes, by id, and whether that is known: else it is this process alone."""
    processes, is_shared = _reports()
    now = time.time()
    found: dict[int, Health] = {}
    for account in accounts:
        name = target_name(account.pk)
        found[account.pk] = health_of((reports[name] for reports in processes if name in reports), now=now)
    return found, is_shared


def _reports() -> tuple[list[dict[str, Report]], bool]:
    """Return what each process reports; this one alone where Redis is away."""
    try:
        with Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1) as redis:
            known, _old = sharing.read_reports(
                redis.hgetall(sharing.reports_key(settings.DATABASES["default"]["NAME"]))
            )
    except (RedisError, OSError):
        return [pool.BOARD.report()], False
    return list(known.values()), True
