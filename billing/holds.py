"""Hold and settle: an answer is paid for in two phases, so that it can neither be free nor be paid for twice.

    admit      take the answer of a plan or the free quota, or freeze what it may cost at most; or refuse
    dispatch   note that the upstream is about to be called; from then on a crash is not free of charge
    checkpoint note what was generated so far, and that somebody still is at it
    settle     charge what was used, unfreeze the rest
    void       unfreeze everything: nothing was put out
    expire_holds    end what nobody ended in time: charged at the checkpoint, or void
    receipt_of      what the user is told of an ended one

A hold ends once: `settle` and `void` both begin by locking it and look whether it is still held. Lock order: see
`billing.ledger`.

What every answer runs is SQL written by hand (see `tenants.table`), the rules are all in Python; what is rare is the
ORM's.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from billing import caps, ledger, pricing, quota
from billing.ledger import Movement, TenantAccounts, UserAccounts
from billing.models import Account, Hold, PriceVersion, Transfer, UsageSource
from billing.models.adjustment import Figures, adjustment_of, figures_of
from billing.pricing import Prices, Quantities
from billing.terms import Terms, terms_query
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.table import Joined, Planned, Query, Statement, Table, carry_out, fetch, fetch_all, run, run_all, send

log = structlog.get_logger(__name__)

EXPIRED: Final = "expired"
# The process that generated the answer died, or lost the database for longer than a hold lives.
INTERRUPTED: Final = "interrupted"
# The end of such an answer became known later, and its charge was put right (`billing.adjustments`).
ADJUSTED: Final = "adjusted"
_EXPIRE_BATCH: Final = 1000
_REASON_LENGTH: Final = 64  # of the column

_HOLDS: Final = Table(Hold)
_KNOWN: Final = "SELECT id FROM billing_hold WHERE tenant_id = %(tenant)s AND key = %(key)s"
_DISPATCH: Final = """
UPDATE billing_hold SET dispatched_at = coalesce(dispatched_at, statement_timestamp())
WHERE tenant_id = %(tenant)s AND id = %(hold)s AND state = 'held'
"""
_CHECKPOINTS: Final = """
UPDATE billing_hold hold SET checkpoint_prompt = new.prompt, checkpoint_cached = new.cached,
    checkpoint_completion = new.completion, heartbeat_at = statement_timestamp(),
    expires_at = statement_timestamp() + %(lease)s
FROM (
    SELECT told.* FROM unnest(%(tenants)s::bigint[], %(holds)s::uuid[], %(prompts)s::bigint[], %(cached)s::bigint[],
        %(completions)s::bigint[]) AS told (tenant, hold, prompt, cached, completion)
    JOIN billing_hold held ON held.tenant_id = told.tenant AND held.id = told.hold AND held.state = 'held'
    ORDER BY held.id FOR UPDATE OF held SKIP LOCKED
) AS new
WHERE hold.tenant_id = new.tenant AND hold.id = new.hold RETURNING hold.id
"""
# Its prices come by a join: two of them belong to the platform.
_PRICED: Final = Joined(hold=_HOLDS, retail=pricing.VERSIONS, wholesale=pricing.VERSIONS, cost=pricing.VERSIONS)
_LOCK_HELD: Final = _PRICED.select("""
FROM billing_hold hold
JOIN billing_priceversion retail ON retail.id = hold.retail_price_id
JOIN billing_priceversion wholesale ON wholesale.id = hold.wholesale_price_id
JOIN billing_priceversion cost ON cost.id = hold.cost_price_id
WHERE hold.tenant_id = %(tenant)s AND hold.id = %(hold)s AND hold.state = 'held' FOR UPDATE OF hold
""")
_END: Final = """
UPDATE billing_hold SET state = %(state)s, ended_at = statement_timestamp(), reason = %(reason)s,
    posted_prompt = %(posted_prompt)s, posted_cached = %(posted_cached)s, posted_completion = %(posted_completion)s,
    usage_source = %(usage_source)s, charge = %(charge)s, gift_charge = %(gift_charge)s, cash_charge = %(cash_charge)s,
    shortfall = %(shortfall)s, wholesale_charge = %(wholesale_charge)s, wholesale_shortfall = %(wholesale_shortfall)s,
    own_share = %(own_share)s, parent_share = %(parent_share)s, cost = %(cost)s
WHERE tenant_id = %(tenant_id)s AND id = %(id)s AND state = 'held'
"""


class BudgetShortError(Exception):
    """The request's `budget`, not the user's balance, pays for less than the shortest answer."""


class DuplicateKeyError(Exception):
    """The key has a hold already: `hold_id`, open or ended."""

    def __init__(self, hold_id: uuid.UUID) -> None:
        super().__init__(str(hold_id))
        self.hold_id = hold_id


@dataclass(frozen=True, kw_only=True)
class HoldRequest:
    """What someone wants to spend.

    `key` is unique in the tenant, so it names the user too. `hold_id` lets the caller give the hold the id of what it
    pays for. `prompt_tokens` is an upper bound; `max_completion_tokens` is what the caller would like,
    `min_completion_tokens` what makes it worth starting (ValueError where these make no sense). What of `quota_group`
    costs the user nothing is in the terms; `paid_way` tells whether more of it can be bought answer by answer at all.
    `budget`, micro-yuan, is what may be spent on the answer at most, whatever the balance is. `dispatched`: the
    upstream is called as soon as this is committed, so that nothing more needs to be noted before.
    """

    tenant_id: int
    user_id: int
    key: str
    sku: str
    prompt_tokens: int
    max_completion_tokens: int
    min_completion_tokens: int
    quota_group: str
    paid_way: bool
    is_guest: bool
    budget: int | None = None
    dispatched: bool = False
    hold_id: uuid.UUID = field(default_factory=uuid7)

    def __post_init__(self) -> None:
        Quantities(prompt=self.prompt_tokens, completion=self.max_completion_tokens)
        if not 0 <= self.min_completion_tokens <= self.max_completion_tokens:
            raise ValueError("the shortest answer is longer than the longest")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What an answer used; token counts are bounded as in `Quantities` (ValueError)."""

    prompt: int
    cached: int = 0
    completion: int
    source: str  # a UsageSource

    def __post_init__(self) -> None:
        UsageSource(self.source)
        _ = self.quantities

    @property
    def quantities(self) -> Quantities:
        """The same, as pricing takes it."""
        return Quantities(prompt=self.prompt, cached=self.cached, completion=self.completion)


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a user is told about the charge of one answer; amounts in micro-yuan."""

    usage: Usage
    price: PriceVersion
    charge: int
    free: bool
    plan: bool  # of what is free: whether a plan paid
    gift: int
    cash: int
    shortfall: int
    balance: int
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return the wire's object: amounts as strings, since JavaScript has no such integers."""
        return {
            "prompt_tokens": self.usage.prompt,
            "cached_tokens": self.usage.cached,
            "completion_tokens": self.usage.completion,
            "usage_source": str(self.usage.source),
            "unit_prices": {
                "prompt": str(self.price.prompt_rate),
                "cached": str(self.price.cached_rate),
                "completion": str(self.price.completion_rate),
                "per_call": str(self.price.per_call),
                "multiplier_ppm": str(self.price.multiplier_ppm),
            },
            "charge": str(self.charge),
            "funding": {"free": self.free, "plan": self.plan, "gift": str(self.gift), "cash": str(self.cash)},
            "balance": str(self.balance),
            "reason": self.reason,
        }


# What a caller writes of a receipt.
Along = Callable[[Receipt], Planned]


class _Funding(NamedTuple):
    """Who pays for an answer, and up to how many tokens of it; where it is free, the counter that it was taken from."""

    max_completion: int
    free: bool = False
    subscription_id: int | None = None
    counter_date: date | None = None
    gift: int = 0
    cash: int = 0

    @property
    def spend(self) -> int:
        """What the user spends at most, micro-yuan."""
        return self.gift + self.cash


class Rated(NamedTuple):
    """What usage comes to at the prices that a hold pinned, micro-yuan."""

    charge: int
    wholesale: int
    cost: int


def admit(request: HoldRequest, *, first: Sequence[Statement] = ()) -> Hold:
    """Freeze what the answer may cost at most: of the user's plan, free quota, gift or cash, and the tenant's wallet.

    Part of the caller's transaction, and best the last thing in it: the tenant's wallet stays locked until the commit.
    What is to be written `first` goes by the same round trip, before anything is locked. The hold's
    `max_completion_tokens` is what is affordable, at most what was asked for. Raises DuplicateKeyError,
    BudgetShortError, and ProductError 101 (the user can go on by paying), 102 (paying does not help now) or 404 (no
    price); then the caller's transaction cannot be committed.
    """
    owner = {"tenant_id": request.tenant_id, "user_id": request.user_id}
    with scope.tenant(request.tenant_id), transaction.atomic(savepoint=False):
        terms, prices, accounts, wallet = _look(request, first)
        funding = _fund(request, terms, prices, accounts)
        counters = caps.count(**owner, terms=terms, spend=funding.spend)
        counters += caps.count(tenant_id=request.tenant_id, user_id=None, terms=terms, spend=funding.spend)
        wholesale = pricing.amount(
            prices.wholesale, Quantities(prompt=request.prompt_tokens, completion=funding.max_completion)
        )
        hold = Hold(
            id=request.hold_id,
            tenant_id=request.tenant_id,
            user_id=request.user_id,
            key=request.key,
            sku=request.sku,
            amount=funding.spend,
            gift_amount=funding.gift,
            cash_amount=funding.cash,
            wholesale_amount=wholesale,
            retail_price=prices.retail,
            wholesale_price=prices.wholesale,
            cost_price=prices.cost,
            free=funding.free,
            subscription_id=funding.subscription_id,
            counter_date=funding.counter_date,
            cap_counters=counters,
            quota_group=request.quota_group,
            quota_date=terms.day.date,
            reseller_id=terms.reseller_id,
            own_ppm=terms.own_ppm,
            parent_reseller_id=terms.parent_reseller_id,
            parent_ppm=terms.parent_ppm,
            prompt_tokens=request.prompt_tokens,
            max_completion_tokens=funding.max_completion,
            created_at=terms.now,
            dispatched_at=terms.now if request.dispatched else None,
            expires_at=terms.now + timedelta(seconds=settings.HOLD_SECONDS),
        )
        _freeze(hold, accounts, wallet)
        return hold


def _look(request: HoldRequest, first: Sequence[Statement]) -> tuple[Terms, Prices, UserAccounts, Account]:
    """Write what is to be written first, and return what an answer is judged by, with the user's accounts locked.

    By one round trip. Refuses a known key.

    The lock makes a user's requests wait for each other, so what is read behind it stays true.
    """
    owner = {"tenant_id": request.tenant_id, "user_id": request.user_id}
    known_query = Query(_KNOWN, {"tenant": request.tenant_id, "key": request.key}, list)
    _counts, (terms, prices, accounts, known, wallet) = send(
        first,
        [
            terms_query(**owner, group=request.quota_group),
            pricing.prices_query(tenant_id=request.tenant_id, sku=request.sku),
            ledger.user_accounts_query(**owner),
            known_query,
            ledger.wallet_query(tenant_id=request.tenant_id),
        ],
    )
    if accounts is None:
        # The user's first answer: nothing was locked yet.
        accounts, known = ledger.lock_user_accounts(**owner), fetch(known_query)
    if known:
        raise DuplicateKeyError(known[0][0])
    return terms, prices, accounts, wallet or ledger.tenant_accounts(tenant_id=request.tenant_id).wallet


def _freeze(hold: Hold, accounts: UserAccounts, wallet: Account) -> None:
    """Freeze what a hold is of, and write it, by one round trip: the tenant's wallet is locked no longer than that.

    Raises ProductError 102 where the tenant has not prepaid enough.
    """
    parts = (
        (accounts.gift, hold.gift_amount),
        (accounts.cash, hold.cash_amount),
        (wallet, hold.wholesale_amount),
    )
    frozen = [(account, part) for account, part in parts if part]
    statements = [ledger.reservation(account=account, amount=part) for account, part in frozen]
    changed = run_all([*statements, _HOLDS.insertion(hold)])
    for (account, _part), rows in zip(frozen, changed, strict=False):
        if rows != 1 and account is wallet:
            raise _wallet_empty()
        if rows != 1:
            raise ledger.LedgerError(f"account {account.pk} changed while it was locked")


def dispatch(*, tenant_id: int, hold_id: uuid.UUID) -> bool:
    """Note, and commit, that the upstream is about to be called; False if the hold has ended: then do not call it."""
    with scope.tenant(tenant_id), transaction.atomic(durable=True):
        return run(_DISPATCH, {"tenant": tenant_id, "hold": hold_id}) == 1


def checkpoint(*, tenant_id: int, hold_id: uuid.UUID, quantities: Quantities) -> bool:
    """Note what was generated so far, and let the hold live `HOLD_SECONDS` from now; False if it has ended.

    The quantities are an offline count. They are what is charged if nobody ends the hold any more.
    """
    with scope.tenant(tenant_id):
        held = Hold.objects.filter(pk=hold_id, state=Hold.State.HELD)
        lease = timedelta(seconds=settings.HOLD_SECONDS)
        return (
            held.update(
                checkpoint_prompt=quantities.prompt,
                checkpoint_cached=quantities.cached,
                checkpoint_completion=quantities.completion,
                heartbeat_at=Now(),
                expires_at=Now() + lease,
            )
            == 1
        )


def checkpoints_query(checkpoints: Sequence[tuple[int, uuid.UUID, Quantities]]) -> Query[set[uuid.UUID]]:
    """Return the query that notes the same of many holds (tenant, id, quantities), and finds which it has noted.

    Not those that have ended, nor those that someone else has locked: nobody waits for anybody here.
    """
    lease = timedelta(seconds=settings.HOLD_SECONDS)
    values = {
        "tenants": [tenant_id for tenant_id, _hold_id, _quantities in checkpoints],
        "holds": [hold_id for _tenant_id, hold_id, _quantities in checkpoints],
        "prompts": [quantities.prompt for _tenant_id, _hold_id, quantities in checkpoints],
        "cached": [quantities.cached for _tenant_id, _hold_id, quantities in checkpoints],
        "completions": [quantities.completion for _tenant_id, _hold_id, quantities in checkpoints],
        "lease": lease,
    }
    return Query(_CHECKPOINTS, values, lambda rows: {hold_id for (hold_id,) in rows})


def settle(
    *, tenant_id: int, hold_id: uuid.UUID, usage: Usage, reason: str, along: Along | None = None
) -> Receipt | None:
    """Charge what was used, at the prices that the hold pinned; None if the hold had ended before.

    A charge above the hold takes what else there is, and the rest is booked as shortfall: a balance never falls
    below zero. An answer that put nothing out is voided by the caller instead, since it costs nothing. What the caller
    writes of the receipt goes `along`, by the same round trip.
    """
    # What fails in here must fail the whole: nothing to come back to is needed.
    with scope.tenant(tenant_id), transaction.atomic(savepoint=False):
        hold = _lock_held(tenant_id, hold_id)
        return _settle(hold, usage, _storable(reason), along) if hold else None


def void(*, tenant_id: int, hold_id: uuid.UUID, reason: str) -> bool:
    """Unfreeze all of a hold and give its free answer back; False if the hold had ended before."""
    with scope.tenant(tenant_id), transaction.atomic(savepoint=False):
        hold = _lock_held(tenant_id, hold_id)
        if hold is None:
            return False
        _void(hold, _storable(reason))
        return True


def expire_holds() -> int:
    """End holds past their expiry, of all tenants; return how many. Several may run at once.

    One whose answer had begun is charged at its last checkpoint; one that was never sent, or had no output, is void.
    Each in a transaction of its own, since the lock order of `billing.ledger` is one user's rows, then the tenant's. A
    hold that cannot be ended is logged and must not keep the others frozen.
    """
    expired = 0
    with scope.platform("holds nobody ended, in every tenant"):
        past = Hold.objects.filter(state=Hold.State.HELD, expires_at__lt=Now()).order_by("expires_at")
        for hold_id in list(past.values_list("pk", flat=True)[:_EXPIRE_BATCH]):
            try:
                expired += _expire(hold_id)
            except ledger.LedgerError:
                log.exception("hold cannot be ended", hold_id=str(hold_id))
    return expired


def _expire(hold_id: uuid.UUID) -> bool:
    with transaction.atomic():
        past = with_prices(Hold.objects.filter(pk=hold_id, state=Hold.State.HELD, expires_at__lt=Now()))
        hold = past.select_for_update(of=("self",), skip_locked=True).first()
        if hold is None:
            return False
        with scope.tenant(hold.tenant_id):
            if hold.dispatched_at and hold.checkpoint_completion:
                _settle(hold, _usage_at_checkpoint(hold), INTERRUPTED)
            else:
                _void(hold, EXPIRED)
        return True


def _usage_at_checkpoint(hold: Hold) -> Usage:
    """Return what was counted before the hold was left alone; like every offline count never more than is held."""
    return Usage(
        prompt=min(hold.checkpoint_prompt, hold.prompt_tokens),
        cached=min(hold.checkpoint_cached, hold.checkpoint_prompt, hold.prompt_tokens),
        completion=min(hold.checkpoint_completion, hold.max_completion_tokens),
        source=UsageSource.ESTIMATE,
    )


def receipt_of(*, tenant_id: int, hold_id: uuid.UUID) -> Receipt | None:
    """Return the receipt of a posted hold, with today's balance; None for a hold that is open or void.

    It shows what late usage has changed, if any has come.
    """
    with scope.tenant(tenant_id):
        posted = Hold.objects.select_related("retail_price").filter(pk=hold_id, state=Hold.State.POSTED)
        hold = posted.first()
        if hold is None:
            return None
        adjustment = adjustment_of(hold)
        balance = ledger.balances(tenant_id=tenant_id, user_id=hold.user_id).available
        return _receipt(
            hold, figures_of(hold, adjustment), balance=balance, reason=ADJUSTED if adjustment else hold.reason
        )


def _storable(reason: str) -> str:
    """Make a reason fit its column: it may be an upstream's words, and those must never keep a hold from ending."""
    return reason.replace("\0", "")[:_REASON_LENGTH]


def _fund(request: HoldRequest, terms: Terms, prices: Prices, accounts: UserAccounts) -> _Funding:
    """Take an answer of a plan, else a free one, else reckon what gift, then cash, are to pay; or refuse."""
    taken = _take_of_plan(request, terms) or _take_free(request, terms)
    if taken:
        return taken
    if request.is_guest or not request.paid_way:
        raise _quota_used_up(request, terms)
    available = accounts.available if request.budget is None else min(accounts.available, request.budget)
    completion = pricing.affordable_completion(
        price=prices.retail,
        available=available,
        prompt=request.prompt_tokens,
        wanted=request.max_completion_tokens,
    )
    if completion < request.min_completion_tokens:
        if available < accounts.available:
            raise BudgetShortError
        raise _not_affordable(request, terms, prices, accounts)
    held = pricing.amount(prices.retail, Quantities(prompt=request.prompt_tokens, completion=completion))
    gift = min(held, accounts.gift.available)
    return _Funding(gift=gift, cash=held - gift, max_completion=completion)


def _take_of_plan(request: HoldRequest, terms: Terms) -> _Funding | None:
    """Take an answer of the plan that ends first, or of the next; None if none has any left."""
    for plan in terms.plans:
        day = terms.counted_on(plan)
        if quota.take_of_plan(
            tenant_id=request.tenant_id,
            subscription_id=plan.subscription_id,
            group=request.quota_group,
            day=day,
            limit=plan.answers,
        ):
            return _Funding(
                free=True,
                subscription_id=plan.subscription_id,
                counter_date=day,
                max_completion=request.max_completion_tokens,
            )
    return None


def _take_free(request: HoldRequest, terms: Terms) -> _Funding | None:
    """Take a free answer: one of the day, or of a guest's in all; None if there is none left."""
    day = quota.IN_ALL if request.is_guest else terms.day.date
    if quota.take(
        tenant_id=request.tenant_id,
        user_id=request.user_id,
        group=request.quota_group,
        day=day,
        limit=terms.guest_allowance if request.is_guest else terms.free_per_day,
    ):
        counter = day if request.is_guest else None
        return _Funding(free=True, counter_date=counter, max_completion=request.max_completion_tokens)
    return None


class _UsedUp(NamedTuple):
    """An allowance with nothing left, and when there is more; `scope` is "plan" or "user"."""

    scope: str
    used: int
    limit: int
    reset_at: datetime | None


def _quota_used_up(request: HoldRequest, terms: Terms) -> ProductError:
    """102: what is free is used up (or there is nothing), and there is no paid way on. Names what comes back first."""
    allowances = [*_used_up_plans(request, terms), _used_up_free(request, terms)]
    first = min(allowances, key=lambda allowance: (allowance.reset_at is None, allowance.reset_at or terms.now))
    if request.is_guest:
        message, action = _("Your trial is used up. Please sign up to go on."), "register"
    elif first.reset_at is None:
        message, action = _("This model cannot be used here at the moment. Please choose another one."), "choose_model"
    elif first.scope == "plan":
        message, action = _("Your plan's answers are used up for now. Please come back later."), "wait"
    else:
        message, action = _("Today's free answers are used up. Please come back tomorrow."), "wait"
    return ProductError(
        ErrorCode.QUOTA,
        message,
        type="quota_used_up",
        scope=first.scope,
        action=action,
        reset_at=first.reset_at,
        used=first.used,
        limit=first.limit,
    )


def _used_up_plans(request: HoldRequest, terms: Terms) -> list[_UsedUp]:
    return [
        _UsedUp(
            "plan",
            quota.used_of_plan(
                tenant_id=request.tenant_id,
                subscription_id=plan.subscription_id,
                group=request.quota_group,
                day=terms.counted_on(plan),
            ),
            plan.answers,
            terms.plan_resets_at(plan),
        )
        for plan in terms.plans
    ]


def _used_up_free(request: HoldRequest, terms: Terms) -> _UsedUp:
    """Return the free quota's state: a guest's never comes back, and where there is none nothing does."""
    day = quota.IN_ALL if request.is_guest else terms.day.date
    limit = terms.guest_allowance if request.is_guest else terms.free_per_day
    used = quota.used(tenant_id=request.tenant_id, user_id=request.user_id, group=request.quota_group, day=day)
    return _UsedUp("user", used, limit, terms.day.ends_at if limit and not request.is_guest else None)


def _not_affordable(request: HoldRequest, terms: Terms, prices: Prices, accounts: UserAccounts) -> ProductError:
    """101, unless a cap would refuse the shortest answer all the same: then paying does not help."""
    shortest = Quantities(prompt=request.prompt_tokens, completion=request.min_completion_tokens)
    needed = pricing.amount(prices.retail, shortest)
    capped = caps.reached(tenant_id=request.tenant_id, user_id=request.user_id, terms=terms, spend=needed)
    return capped or _balance_short(accounts, needed)


def _balance_short(accounts: UserAccounts, needed: int) -> ProductError:
    """101: with more balance this would go on. The limit is what the user has, of which open answers use a part."""
    posted = accounts.gift.posted + accounts.cash.posted
    return ProductError(
        ErrorCode.RECHARGE,
        _("Your balance does not cover this question. Please recharge."),
        type="balance_short",
        scope="user",
        action="recharge",
        reset_at=None,
        used=str(posted - accounts.available),
        limit=str(posted),
        balance=str(accounts.available),
        needed=str(needed),
    )


def _wallet_empty() -> ProductError:
    """102: the tenant has not prepaid enough. Its user can do nothing about that, and is told no figures of it."""
    return ProductError(
        ErrorCode.QUOTA,
        _("This service is out of credit at the moment. Please tell its provider."),
        type="tenant_wallet_empty",
        scope="tenant",
        action="contact",
        reset_at=None,
        used=None,
        limit=None,
    )


def _lock_held(tenant_id: int, hold_id: uuid.UUID) -> Hold | None:
    """Lock the hold if it is still held, and return it with its prices."""
    found = fetch(Query(_LOCK_HELD, {"tenant": tenant_id, "hold": hold_id}, _PRICED.first))
    if found is None:
        return None
    hold: Hold
    hold, hold.retail_price, hold.wholesale_price, hold.cost_price = found
    return hold


def with_prices(holds: QuerySet[Hold]) -> QuerySet[Hold]:
    """Have each hold's prices read with it."""
    return holds.select_related("retail_price", "wholesale_price", "cost_price")


def rate(hold: Hold, usage: Usage) -> Rated:
    """Return what `usage` comes to at the hold's own prices; whoever settles or adjusts a hold asks here."""
    return Rated(
        charge=0 if hold.free else pricing.amount(hold.retail_price, usage.quantities),
        wholesale=pricing.amount(hold.wholesale_price, usage.quantities),
        cost=pricing.amount(hold.cost_price, usage.quantities),
    )


def _settle(hold: Hold, usage: Usage, reason: str, along: Along | None = None) -> Receipt:
    """End a locked hold with what was used, and move the money."""
    hold.charge, hold.wholesale_charge, hold.cost = rate(hold, usage)
    hold.own_share = pricing.share(amount=hold.wholesale_charge, ppm=hold.own_ppm or 0)
    hold.parent_share = pricing.share(amount=hold.wholesale_charge, ppm=hold.parent_ppm or 0)
    shares = _shares(hold)
    accounts, tenant = _lock_accounts(hold, resellers=list(shares))
    caps.correct(tenant_id=hold.tenant_id, counters=hold.cap_counters, answers=0, spend=hold.charge - hold.amount)
    moved = _planned_move(hold, [*_charge_user(hold, accounts, tenant), *_charge_wallet(hold, tenant, shares)], reason)
    balance = accounts.available + hold.amount - hold.gift_charge - hold.cash_charge
    ended = _planned_post(hold, usage, reason)
    receipt = _receipt(hold, figures_of(hold, None), balance=balance, reason=reason)
    carry_out(moved, ended, *([along(receipt)] if along else []))
    return receipt


def _planned_move(hold: Hold, movements: Sequence[Movement], reason: str) -> Planned:
    """Return the transfer of a locked hold's charge, or of none what is freed. The hold has no other of this kind."""
    if not any(movement.amount for movement in movements):
        return ledger.planned_release(movements=movements)
    return ledger.planned_move(
        tenant_id=hold.tenant_id,
        kind=Transfer.Kind.ANSWER,
        ref=str(hold.pk),
        reason=reason,
        actor="system",
        movements=movements,
    )


def _lock_accounts(hold: Hold, *, resellers: Sequence[int] = ()) -> tuple[UserAccounts, TenantAccounts]:
    """Lock the user's accounts, and return them with the tenant's, which are not locked yet."""
    accounts, tenant = fetch_all(
        ledger.user_accounts_query(tenant_id=hold.tenant_id, user_id=hold.user_id),
        ledger.tenant_accounts_query(tenant_id=hold.tenant_id, resellers=resellers),
    )
    return (
        accounts or ledger.lock_user_accounts(tenant_id=hold.tenant_id, user_id=hold.user_id),
        tenant or ledger.tenant_accounts(tenant_id=hold.tenant_id, resellers=resellers),
    )


def _receipt(hold: Hold, figures: Figures, *, balance: int, reason: str) -> Receipt:
    return Receipt(
        usage=Usage(prompt=figures.prompt, cached=figures.cached, completion=figures.completion, source=figures.source),
        price=hold.retail_price,
        charge=figures.charge,
        free=hold.free,
        plan=hold.subscription_id is not None,
        gift=figures.gift,
        cash=figures.cash,
        shortfall=figures.shortfall,
        balance=balance,
        reason=reason,
    )


def _charge_user(hold: Hold, accounts: UserAccounts, tenant: TenantAccounts) -> list[Movement]:
    """Split the charge: what is held, gift before cash; then what else there is; then shortfall."""
    rest = hold.charge
    hold.gift_charge = min(rest, hold.gift_amount)
    rest -= hold.gift_charge
    hold.cash_charge = min(rest, hold.cash_amount)
    rest -= hold.cash_charge
    more_gift = min(rest, accounts.gift.available)
    more_cash = min(rest - more_gift, accounts.cash.available)
    hold.gift_charge += more_gift
    hold.cash_charge += more_cash
    hold.shortfall = rest - more_gift - more_cash
    return [
        Movement(account=accounts.gift, amount=-hold.gift_charge, release=hold.gift_amount),
        Movement(account=accounts.cash, amount=-hold.cash_charge, release=hold.cash_amount),
        Movement(account=tenant.retail_shortfall, amount=-hold.shortfall),
        Movement(account=tenant.revenue, amount=hold.charge),
    ]


def _shares(hold: Hold) -> dict[int, int]:
    """Return what each reseller gets of the wholesale charge, micro-yuan, without those who get nothing."""
    parts = ((hold.reseller_id, hold.own_share), (hold.parent_reseller_id, hold.parent_share))
    return {reseller_id: share for reseller_id, share in parts if reseller_id is not None and share}


def _charge_wallet(hold: Hold, tenant: TenantAccounts, shares: dict[int, int]) -> list[Movement]:
    """Charge the tenant, whatever its user was charged: also for free answers. Resellers and the platform share it."""
    beyond = hold.wholesale_charge - hold.wholesale_amount
    if beyond > 0:
        hold.wholesale_shortfall = max(beyond - ledger.lock(account=tenant.wallet).available, 0)
    paid = hold.wholesale_charge - hold.wholesale_shortfall
    return [
        Movement(account=tenant.wallet, amount=-paid, release=hold.wholesale_amount),
        Movement(account=tenant.wholesale_shortfall, amount=-hold.wholesale_shortfall),
        *(Movement(account=tenant.accrued[reseller_id], amount=share) for reseller_id, share in shares.items()),
        Movement(account=tenant.platform_revenue, amount=hold.wholesale_charge - sum(shares.values())),
    ]


def _planned_post(hold: Hold, usage: Usage, reason: str) -> Planned:
    """Return the end of a locked hold, with what was used and charged."""
    hold.posted_prompt, hold.posted_cached, hold.posted_completion = usage.prompt, usage.cached, usage.completion
    hold.usage_source = usage.source
    return _planned_end(hold, Hold.State.POSTED, reason)


def _void(hold: Hold, reason: str) -> None:
    """End a locked hold with nothing charged."""
    accounts, tenant = _lock_accounts(hold)
    if hold.free:
        _give_back(hold)
    caps.correct(tenant_id=hold.tenant_id, counters=hold.cap_counters, answers=-1, spend=-hold.amount)
    freed = [
        Movement(account=accounts.gift, release=hold.gift_amount),
        Movement(account=accounts.cash, release=hold.cash_amount),
        Movement(account=tenant.wallet, release=hold.wholesale_amount),
    ]
    carry_out(ledger.planned_release(movements=freed), _planned_end(hold, Hold.State.VOIDED, reason))


def _planned_end(hold: Hold, state: str, reason: str) -> Planned:
    """Return what writes how a locked hold ended, with what stands on it."""

    def check(ended: Sequence[int]) -> None:
        if list(ended) != [1]:
            raise ledger.LedgerError(f"hold {hold.pk} ended while it was locked")

    return Planned([Statement(_END, {**vars(hold), "state": state, "reason": reason})], check)


def _give_back(hold: Hold) -> None:
    """Uncount a free answer where it was counted, whatever the day is now and whether the plan still is good."""
    group, day = hold.quota_group, hold.counter_date or hold.quota_date
    if hold.subscription_id is None:
        quota.give_back(tenant_id=hold.tenant_id, user_id=hold.user_id, group=group, day=day)
        return
    quota.give_back_to_plan(tenant_id=hold.tenant_id, subscription_id=hold.subscription_id, group=group, day=day)
