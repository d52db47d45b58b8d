"""The proof that no money is lost: docs/money.md's invariants, checked on what the database holds.

    audit_tenant    the breaches found in one tenant's books, none if they are right

Each check is one statement and so sees one moment: it may run while chats do. I7, I8 and I11 come with payments.
"""

from dataclasses import dataclass
from typing import Any, Final

from django.db import connection

from billing import pricing
from billing.models import Hold, UsageRecord
from tenants import scope

# A posted hold may wait so long for its usage record before that is a breach: the sweep is well past due then.
RECORD_GRACE_SECONDS: Final = 300


@dataclass(frozen=True, kw_only=True)
class Breach:
    """A row that breaks an invariant: which row, and what is wrong with it."""

    invariant: str
    row: str
    found: str


# Each gives (row, what was found) for what breaks the invariant; parameters: tenant, grace.
_CHECKS: Final = {
    "I1": """
        SELECT 'transfer ' || transfer.id, 'sums to ' || coalesce(sum(entry.amount), 0)
        FROM billing_transfer transfer LEFT JOIN billing_entry entry
            ON entry.tenant_id = transfer.tenant_id AND entry.transfer_id = transfer.id
        WHERE transfer.tenant_id = %(tenant)s
        GROUP BY transfer.id HAVING coalesce(sum(entry.amount), 0) <> 0 OR count(entry.id) < 2""",
    "I2": """
        SELECT 'account ' || account.id, 'posted ' || account.posted || ', entries ' || coalesce(sum(entry.amount), 0)
        FROM billing_account account LEFT JOIN billing_entry entry ON entry.account_id = account.id
        WHERE account.tenant_id = %(tenant)s
        GROUP BY account.id HAVING account.posted <> coalesce(sum(entry.amount), 0)""",
    "I3": """
        SELECT 'account ' || id, 'posted ' || posted || ', pending ' || pending
        FROM billing_account
        WHERE tenant_id = %(tenant)s
          AND (pending < 0 OR (posted < pending AND kind NOT IN ('psp_clearing', 'shortfall')))""",
    "I4": """
        SELECT 'account ' || account.id, 'pending ' || account.pending || ', holds ' || coalesce(sum(held.part), 0)
        FROM billing_account account LEFT JOIN (
            SELECT part.kind, part.user_id, part.part FROM billing_hold hold, LATERAL (VALUES
                ('user_gift', hold.user_id, hold.gift_amount),
                ('user_cash', hold.user_id, hold.cash_amount),
                ('tenant_wholesale', NULL, hold.wholesale_amount)) part (kind, user_id, part)
            WHERE hold.tenant_id = %(tenant)s AND hold.state = 'held'
        ) held ON held.kind = account.kind AND held.user_id IS NOT DISTINCT FROM account.user_id
        WHERE account.tenant_id = %(tenant)s
        GROUP BY account.id HAVING account.pending <> coalesce(sum(held.part), 0)""",
    "I5": """
        SELECT 'hold ' || hold.id, hold.state || ', charges ' || hold.charge || ' and ' || hold.wholesale_charge
            || ', transfers ' || count(transfer.id)
        FROM billing_hold hold LEFT JOIN billing_transfer transfer
            ON transfer.tenant_id = hold.tenant_id AND transfer.kind = 'answer' AND transfer.ref = hold.id::text
        WHERE hold.tenant_id = %(tenant)s
        GROUP BY hold.id
        HAVING count(transfer.id) <> CASE
            WHEN hold.state = 'posted' AND (hold.charge > 0 OR hold.wholesale_charge > 0) THEN 1 ELSE 0 END""",
    "I6": """
        SELECT 'hold ' || hold.id, hold.state || ', usage records ' || count(record.id)
        FROM billing_hold hold LEFT JOIN billing_usagerecord record
            ON record.tenant_id = hold.tenant_id AND record.hold_id = hold.id
        WHERE hold.tenant_id = %(tenant)s
        GROUP BY hold.id
        HAVING count(record.id) <> CASE WHEN hold.recorded_at IS NULL THEN 0 ELSE 1 END
            OR (hold.state = 'posted' AND hold.recorded_at IS NULL
                AND hold.ended_at < now() - make_interval(secs => %(grace)s))""",
    # A paid order has one top-up of its own amounts, another none; and a top-up has a paid order.
    "I7": """
        SELECT 'order ' || orders.id, orders.state || ', top-ups ' || books.topups || ' of ' || books.collected
            || ' for ' || books.cash || ', bonus ' || books.bonus
        FROM billing_order orders CROSS JOIN LATERAL (
            SELECT count(DISTINCT transfer.id) FILTER (WHERE transfer.kind = 'topup') AS topups,
                coalesce(-sum(entry.amount) FILTER (WHERE account.kind = 'psp_clearing'
                    AND account.channel = orders.channel || ':' || orders.merchant_id), 0) AS collected,
                coalesce(sum(entry.amount) FILTER (
                    WHERE account.kind = 'user_cash' AND account.user_id = orders.user_id), 0) AS cash,
                coalesce(sum(entry.amount) FILTER (
                    WHERE account.kind = 'user_gift' AND account.user_id = orders.user_id), 0) AS bonus
            FROM billing_transfer transfer
            JOIN billing_entry entry ON entry.tenant_id = transfer.tenant_id AND entry.transfer_id = transfer.id
            JOIN billing_account account ON account.id = entry.account_id
            WHERE transfer.tenant_id = orders.tenant_id
              AND (transfer.kind, transfer.ref) IN (('topup', orders.id::text), ('gift', 'order:' || orders.id))
        ) books
        WHERE orders.tenant_id = %(tenant)s
          AND (books.topups, books.collected, books.cash, books.bonus) <> CASE WHEN orders.state = 'paid'
              THEN ROW(1::bigint, orders.price::numeric, orders.credits::numeric, orders.bonus::numeric)
              ELSE ROW(0::bigint, 0::numeric, 0::numeric, 0::numeric) END
        UNION ALL
        SELECT 'transfer ' || transfer.id, 'a top-up without a paid order'
        FROM billing_transfer transfer LEFT JOIN billing_order orders ON orders.tenant_id = transfer.tenant_id
            AND orders.id::text = transfer.ref AND orders.state = 'paid'
        WHERE transfer.tenant_id = %(tenant)s AND transfer.kind = 'topup' AND orders.id IS NULL""",
    # The user's charge is the tenant's revenue, the wholesale charge the platform's, and someone paid each of them.
    "I9": """
        SELECT 'hold ' || hold.id, 'charges ' || hold.charge || ' and ' || hold.wholesale_charge
            || ', paid ' || books.user_paid || ' and ' || books.tenant_paid
            || ', received ' || books.tenant_got || ' and ' || books.platform_got
        FROM billing_hold hold CROSS JOIN LATERAL (
            SELECT
                coalesce(-sum(entry.amount) FILTER (WHERE account.kind IN ('user_gift', 'user_cash')
                    OR (account.kind = 'shortfall' AND account.channel = 'retail')), 0) AS user_paid,
                coalesce(-sum(entry.amount) FILTER (WHERE account.kind = 'tenant_wholesale'
                    OR (account.kind = 'shortfall' AND account.channel = 'wholesale')), 0) AS tenant_paid,
                coalesce(sum(entry.amount) FILTER (WHERE account.kind = 'tenant_revenue'), 0) AS tenant_got,
                coalesce(sum(entry.amount) FILTER (WHERE account.kind = 'platform_revenue'), 0) AS platform_got
            FROM billing_transfer transfer
            JOIN billing_entry entry ON entry.tenant_id = transfer.tenant_id AND entry.transfer_id = transfer.id
            JOIN billing_account account ON account.id = entry.account_id
            WHERE transfer.tenant_id = hold.tenant_id AND transfer.kind = 'answer' AND transfer.ref = hold.id::text
        ) books
        WHERE hold.tenant_id = %(tenant)s
          AND (books.user_paid, books.tenant_got, books.tenant_paid, books.platform_got)
              <> (hold.charge, hold.charge, hold.wholesale_charge, hold.wholesale_charge)""",
    "I10": """
        SELECT 'entry ' || entry.id, 'account of tenant ' || account.tenant_id
        FROM billing_entry entry JOIN billing_account account ON account.id = entry.account_id
        WHERE entry.tenant_id = %(tenant)s AND account.tenant_id <> entry.tenant_id""",
}


def audit_tenant(*, tenant_id: int, record_grace_seconds: int = RECORD_GRACE_SECONDS) -> list[Breach]:
    """Check I1 to I6, I9 and I10 on one tenant; return what breaks them."""
    parameters = {"tenant": tenant_id, "grace": record_grace_seconds}
    breaches = [
        Breach(invariant=invariant, row=row, found=found)
        for invariant, query in _CHECKS.items()
        for row, found in _rows(query, parameters)
    ]
    return breaches + _rerated(tenant_id)


def _rows(query: str, parameters: dict[str, Any]) -> list[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return list(cursor.fetchall())


def _rerated(tenant_id: int) -> list[Breach]:
    """I6, second half: each usage record, rated again by the prices that its hold pinned, comes to what was charged."""
    prices = ("retail_price", "wholesale_price", "cost_price")
    with scope.tenant(tenant_id):
        records = UsageRecord.objects.select_related("hold", *prices).order_by("pk")
        return [
            Breach(invariant="I6", row=f"usage record {record.pk}", found=f"rates to {_rate(record)}")
            for record in records.iterator()
            if not _rate(record) == _charges(record) == _charges(record.hold)
            or any(getattr(record, f"{price}_id") != getattr(record.hold, f"{price}_id") for price in prices)
        ]


def _charges(of: UsageRecord | Hold) -> tuple[int, int, int]:
    return of.charge, of.wholesale_charge, of.cost


def _rate(record: UsageRecord) -> tuple[int, int, int]:
    """Return what the record's tokens come to, as `_charges` does."""
    used = pricing.Quantities(
        prompt=record.prompt_tokens, cached=record.cached_tokens, completion=record.completion_tokens
    )
    return (
        0 if record.free else pricing.amount(record.retail_price, used),
        pricing.amount(record.wholesale_price, used),
        pricing.amount(record.cost_price, used),
    )
