"""Caps: an answer is counted before its money is frozen, and counted right when it has ended.

    count      count an answer on the caps of its user, or on those of the tenant; or refuse
    reached    the refusal of a cap that leaves no room, for a user who would else be told to pay
    correct    make up for what an ended answer was, where that differs from what was held

Each counter is one row, raised by a conditional upsert that stays locked until the commit, so that of many parallel
starts exactly those within the limit pass. A user's counters are locked after the user's accounts, the tenant's before
its accounts, each in the order of the caps' ids: the order in which `count` returns them, and `correct` takes them.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.db import connection
from django.utils.translation import gettext_lazy as _

from billing.models import Cap, CapUse
from billing.terms import CapTerms, Terms
from tenants import scope
from tenants.errors import ErrorCode, ProductError

_COUNT: Final = """
INSERT INTO billing_capuse (tenant_id, cap_id, user_id, date, used) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (tenant_id, cap_id, user_id, date) DO UPDATE SET used = billing_capuse.used + EXCLUDED.used
WHERE billing_capuse.used + EXCLUDED.used <= %s RETURNING id
"""
_CORRECT: Final = """
UPDATE billing_capuse counter SET used = counter.used + CASE cap.measure WHEN 'answers' THEN %s ELSE %s END
FROM billing_cap cap WHERE counter.tenant_id = %s AND counter.id = %s AND cap.id = counter.cap_id
"""


def count(*, tenant_id: int, user_id: int | None, terms: Terms, spend: int) -> list[int]:
    """Count an answer that freezes `spend` micro-yuan; return the counters that it is counted on.

    On the user's caps, or for no user on the tenant's. Part of the caller's transaction. Raises ProductError QUOTA
    "cap_reached".
    """
    return [
        _count_one(tenant_id=tenant_id, user_id=user_id, terms=terms, cap=cap, amount=amount)
        for cap in terms.caps
        if cap.is_tenant_s == (user_id is None) and (amount := _amount(cap, spend))
    ]


def reached(*, tenant_id: int, user_id: int, terms: Terms, spend: int) -> ProductError | None:
    """Return the refusal of the first cap that has no room for an answer of `spend` micro-yuan, None if all have."""
    for cap in terms.caps:
        owner = None if cap.is_tenant_s else user_id
        used = used_of(tenant_id=tenant_id, user_id=owner, terms=terms, cap=cap)
        if used + _amount(cap, spend) > cap.limit:
            return _refusal(terms, cap, used)
    return None


def used_of(*, tenant_id: int, user_id: int | None, terms: Terms, cap: CapTerms) -> int:
    """Return what a cap has counted in its present day or month: of the user, or for none of the tenant."""
    with scope.tenant(tenant_id):
        counters = CapUse.objects.filter(cap_id=cap.cap_id, user_id=user_id, date=terms.span_of(cap).date)
        return counters.values_list("used", flat=True).first() or 0


def correct(*, tenant_id: int, counters: Sequence[int], answers: int, spend: int) -> None:
    """Add `answers` and `spend` micro-yuan (each ±) to the counters that a hold was counted on.

    The counters are those of the day and month of the hold. A cap deleted since then has none any more.
    """
    if not (answers or spend):
        return
    with connection.cursor() as cursor:
        for counter in counters:  # one by one: within one statement the order of locking is anyone's guess
            cursor.execute(_CORRECT, [answers, spend, tenant_id, counter])


def in_force(terms: Terms, *, scopes: Iterable[str]) -> list[CapTerms]:
    """Return the caps of these scopes."""
    wanted = set(scopes)
    return [cap for cap in terms.caps if cap.scope in wanted]


def _amount(cap: CapTerms, spend: int) -> int:
    return 1 if cap.measure == Cap.Measure.ANSWERS else spend


def _count_one(*, tenant_id: int, user_id: int | None, terms: Terms, cap: CapTerms, amount: int) -> int:
    if amount <= cap.limit:
        with connection.cursor() as cursor:
            cursor.execute(_COUNT, [tenant_id, cap.cap_id, user_id, terms.span_of(cap).date, amount, cap.limit])
            row = cursor.fetchone()
        if row is not None:
            return int(row[0])
    raise _refusal(terms, cap, used_of(tenant_id=tenant_id, user_id=user_id, terms=terms, cap=cap))


def _refusal(terms: Terms, cap: CapTerms, used: int) -> ProductError:
    """102: paying does not help before the day or month is over. Spending is in micro-yuan, as strings."""
    figures: dict[str, Any] = {"used": used, "limit": cap.limit}
    if cap.measure == Cap.Measure.SPEND:
        figures = {name: str(amount) for name, amount in figures.items()}
    return ProductError(
        ErrorCode.QUOTA,
        _message(cap),
        type="cap_reached",
        scope="tenant" if cap.is_tenant_s else "user",
        action="contact" if cap.is_tenant_s else "wait",
        reset_at=terms.span_of(cap).ends_at,
        used=figures["used"],
        limit=figures["limit"],
        measure=cap.measure,
        period=cap.period,
        quota_group=cap.quota_group,
    )


def _message(cap: CapTerms) -> Any:
    if cap.is_tenant_s:
        return _("This service has reached its own limit for now. Please tell its provider.")
    if cap.period == Cap.Period.DAY:
        return _("You have reached today's limit. Please come back tomorrow.")
    return _("You have reached this month's limit. Please come back next month.")
