"""Who answers a model offer: the rows of its accounts made into targets, which the pipe takes."""

from typing import Any, Final, NamedTuple

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, QuerySet

from chat.models import ChatRules, ModelOffer, ModelRoute, UpstreamAccount
from chat.upstream.base import Limits, Timeouts, UpstreamTarget
from tenants import scope
from tenants.table import Joined, Query, Table

_USABLE: Final = {"is_enabled": True, "account__is_enabled": True}
_SALES: Final = Joined(offer=Table(ModelOffer), account=Table(UpstreamAccount), rules=Table(ChatRules))
# What `available` says, for the one offer of a question: every chat runs it.
_ON_SALE: Final = _SALES.select("""
, routes.routed FROM chat_modeloffer offer JOIN chat_upstreamaccount account ON account.id = offer.account_id
LEFT JOIN chat_chatrules rules ON rules.tenant_id = offer.tenant_id
CROSS JOIN LATERAL (SELECT EXISTS (
    SELECT FROM chat_modelroute route JOIN chat_upstreamaccount other ON other.id = route.account_id
    WHERE route.tenant_id = offer.tenant_id AND route.offer_id = offer.id AND route.is_enabled AND other.is_enabled
) AS routed) AS routes
WHERE offer.tenant_id = %(tenant)s AND offer.is_enabled AND (account.is_enabled OR routes.routed)
  AND (%(slug)s = '' OR offer.slug = %(slug)s)
ORDER BY offer.is_default DESC, offer.id LIMIT 1
""")


class OnSale(NamedTuple):
    """An offer, with its own account and whether it has others (`routed`), and what is true for every chat."""

    offer: ModelOffer
    rules: ChatRules


def sale_query(*, tenant_id: int, slug: str) -> Query[OnSale | None]:
    """Return the query of the tenant's offer of that name, or its default one, if it is one of the `available`."""
    scope.require_owner(tenant_id)
    return Query(_ON_SALE, {"tenant": tenant_id, "slug": slug}, _on_sale)


def _on_sale(rows: list[tuple[Any, ...]]) -> OnSale | None:
    found = _SALES.first(rows)
    if found is None:
        return None
    offer, offer.account, rules, offer.routed = found
    return OnSale(offer, rules or ChatRules())


def available(offers: QuerySet[ModelOffer]) -> QuerySet[ModelOffer]:
    """Return the offers that some account answers, with their own account, and whether they have others (`routed`)."""
    routes = ModelRoute.objects.filter(tenant_id=OuterRef("tenant_id"), offer=OuterRef("pk"), **_USABLE)
    return (
        offers.select_related("account")
        .annotate(routed=Exists(routes))
        .filter(Q(account__is_enabled=True) | Q(routed=True), is_enabled=True)
    )


def targets_of(offer: ModelOffer) -> tuple[UpstreamTarget, ...]:
    """Return a target for each account that answers an offer of `available`; one query more where there are several."""
    found: list[UpstreamTarget] = []
    if offer.account.is_enabled:
        own = target_of(
            offer.account, offer.upstream_model, priority=ModelRoute.OWN_PRIORITY, weight=ModelRoute.OWN_WEIGHT
        )
        found.append(own)
    if offer.routed:  # type: ignore[attr-defined]  # the annotation's
        for route in ModelRoute.objects.select_related("account").filter(offer=offer, **_USABLE):
            model = route.upstream_model or offer.upstream_model
            found.append(target_of(route.account, model, priority=route.priority, weight=route.weight))
    return tuple(found)


def target_of(account: UpstreamAccount, model: str, *, priority: int = 0, weight: int = 1) -> UpstreamTarget:
    """Return an account and a model on it as a target."""
    return UpstreamTarget(
        name=target_name(account.pk),
        base_url=account.base_url,
        api_key=account.api_key,
        model=account.model_names.get(model, model),
        timeouts=Timeouts(
            connect=account.connect_seconds or settings.UPSTREAM_CONNECT_TIMEOUT,
            first_token=account.first_token_seconds or settings.UPSTREAM_FIRST_TOKEN_TIMEOUT,
            idle=account.idle_seconds or settings.UPSTREAM_IDLE_TIMEOUT,
            total=account.total_seconds or settings.UPSTREAM_TOTAL_TIMEOUT,
        ),
        dialect=account.dialect,
        api_version=account.api_version,
        rules=account.parameter_rules,
        limits=Limits(concurrent=account.max_concurrent, per_minute=account.max_per_minute),
        priority=priority,
        weight=weight,
        # The operator's own accounts lead wherever the operator says.
        may_reach=None if account.tenant_id is None else frozenset(settings.UPSTREAM_PRIVATE_NETWORKS),
    )


def target_name(account_id: int) -> str:
    """Return the name under which the pipe, its logs and its health know an account."""
    return f"account-{account_id}"
