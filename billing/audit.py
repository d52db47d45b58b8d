"""The proof that no money is lost: docs/money.md's invariants, checked on what the database holds.

    audit           every check on the whole ledger, or on one tenant's part of it
    audit_tenant    the breaches found in one tenant's books, none if they are right

Each check is one statement and so sees one moment: it may run while chats do. Rows are counted where they lie; what
comes back is figures and the first few breaches, whatever the size of the ledger.

**A new check** is one more `Check`. Its query returns a row for each thing checked: `tenant_id` (NULL is the platform),
`subject` (which row), `fault` (what is wrong with it, NULL where nothing is). Its parameters are `tenant` (NULL
where all are checked), `grace`, and `below_zero`, the kinds of account that may stand below zero.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.db import connection
from django.utils.translation import gettext_lazy as _

from billing.models.account import BELOW_ZERO_KINDS

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

# A posted hold may wait so long for its usage record before that is a breach: the sweep is well past due then.
RECORD_GRACE_SECONDS: Final = 300
# How many breaches of a check are named; the others are counted.
SHOWN: Final = 20


@dataclass(frozen=True, kw_only=True)
class Breach:
    """A row that breaks an invariant: whose it is (a tenant's slug, "" the platform), which, and what is wrong."""

    invariant: str
    tenant: str
    row: str
    found: str


@dataclass(frozen=True, kw_only=True)
class Check:
    """An invariant, in words and as a query."""

    invariant: str
    meaning: "_StrOrPromise"
    query: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one check came to: rows checked, breaches among them, and the first of these."""

    check: Check
    rows: int
    breaches: int
    shown: list[Breach]


_TRANSFERS: Final = Check(
    invariant="I1",
    meaning=_("the entries of a transfer sum to zero"),
    query="""
        SELECT transfer.tenant_id, 'transfer ' || transfer.id AS subject,
            CASE WHEN coalesce(sum(entry.amount), 0) <> 0 OR count(entry.id) < 2
                THEN 'sums to ' || coalesce(sum(entry.amount), 0) || ', entries ' || count(entry.id) END AS fault
        FROM billing_transfer transfer LEFT JOIN billing_entry entry
            ON entry.transfer_id = transfer.id AND entry.tenant_id IS NOT DISTINCT FROM transfer.tenant_id
            AND (%(tenant)s::bigint IS NULL OR entry.tenant_id = %(tenant)s)
        WHERE %(tenant)s::bigint IS NULL OR transfer.tenant_id = %(tenant)s
        GROUP BY transfer.id""",
)
_BALANCES: Final = Check(
    invariant="I2",
    meaning=_("a balance is the sum of its entries"),
    query="""
        SELECT account.tenant_id, 'account ' || account.id AS subject,
            CASE WHEN account.posted <> coalesce(sum(entry.amount), 0)
                THEN 'posted ' || account.posted || ', entries ' || coalesce(sum(entry.amount), 0) END AS fault
        FROM billing_account account LEFT JOIN billing_entry entry ON entry.account_id = account.id
        WHERE %(tenant)s::bigint IS NULL OR account.tenant_id = %(tenant)s
        GROUP BY account.id""",
)
_AVAILABLE: Final = Check(
    invariant="I3",
    meaning=_("what is available is never below zero, but for clearing and shortfall"),
    query="""
        SELECT tenant_id, 'account ' || id AS subject,
            CASE WHEN pending < 0 OR (posted < pending AND kind <> ALL(%(below_zero)s))
                THEN 'posted ' || posted || ', pending ' || pending END AS fault
        FROM billing_account
        WHERE %(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s""",
)
# Both sides are grouped together, so that a hold without any account is found like an account without its holds.
_PENDING: Final = Check(
    invariant="I4",
    meaning=_("what is pending is the sum of the open holds"),
    query="""
        SELECT tenant_id,
            coalesce('account ' || max(account_id), 'no ' || kind || coalesce(' of user ' || user_id, '')) AS subject,
            CASE WHEN sum(pending) <> sum(held)
                THEN 'pending ' || sum(pending) || ', holds ' || sum(held) END AS fault
        FROM (
            SELECT id AS account_id, tenant_id, kind, user_id, reseller_id, channel, pending, 0 AS held
            FROM billing_account
            UNION ALL
            SELECT NULL, hold.tenant_id, part.kind, part.user_id, NULL, '', 0, part.held
            FROM billing_hold hold CROSS JOIN LATERAL (VALUES
                ('user_gift', hold.user_id, hold.gift_amount),
                ('user_cash', hold.user_id, hold.cash_amount),
                ('tenant_wholesale', NULL, hold.wholesale_amount)) part (kind, user_id, held)
            WHERE hold.state = 'held'
        ) side
        WHERE %(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s
        GROUP BY tenant_id, kind, user_id, reseller_id, channel""",
)
_ENDS: Final = Check(
    invariant="I5",
    meaning=_("a hold ends at most once"),
    query="""
        SELECT coalesce(hold.tenant_id, answer.tenant_id) AS tenant_id,
            coalesce('hold ' || hold.id, 'transfer ' || answer.id) AS subject,
            CASE
                WHEN hold.id IS NULL THEN 'charges for a hold that does not exist'
                WHEN late.id IS NOT NULL AND (hold.state, hold.reason) <> ('posted', 'interrupted')
                THEN hold.state || ', ' || hold.reason || ', and adjusted'
                WHEN coalesce(answer.adjustments, 0)
                    <> (late.id IS NOT NULL AND (late.charge <> 0 OR late.wholesale_charge <> 0))::int
                THEN 'adjusted by ' || coalesce(late.charge, 0) || ' and ' || coalesce(late.wholesale_charge, 0)
                    || ', transfers ' || coalesce(answer.adjustments, 0)
                WHEN coalesce(answer.transfers, 0)
                    <> (hold.state = 'posted' AND (hold.charge > 0 OR hold.wholesale_charge > 0))::int
                THEN hold.state || ', charges ' || hold.charge || ' and ' || hold.wholesale_charge
                    || ', transfers ' || coalesce(answer.transfers, 0)
            END AS fault
        FROM (
            SELECT id, tenant_id, state, reason, charge, wholesale_charge FROM billing_hold
            WHERE %(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s
        ) hold FULL JOIN (
            SELECT tenant_id, ref, min(id) AS id, count(*) FILTER (WHERE kind = 'answer') AS transfers,
                count(*) FILTER (WHERE kind = 'adjustment') AS adjustments
            FROM billing_transfer
            WHERE kind IN ('answer', 'adjustment') AND (%(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s)
            GROUP BY tenant_id, ref
        ) answer ON answer.tenant_id = hold.tenant_id AND answer.ref = hold.id::text
        LEFT JOIN billing_usageadjustment late ON late.tenant_id = hold.tenant_id AND late.hold_id = hold.id""",
)
# billing.pricing.amount said once more, in whole numbers of any size: the proof does not trust what it proves.
_AMOUNT: Final = """
    div((used.fresh * {price}.prompt_rate + used.cached * {price}.cached_rate
        + used.completion * {price}.completion_rate) * {price}.multiplier_ppm + 999999999999, 1000000000000)
    + {price}.per_call"""
# What a hold (`hold`) and the usage that came late (`late`, if any) make together.
_FINAL: Final = """
    coalesce(late.prompt_tokens, hold.posted_prompt) AS prompt,
    coalesce(late.cached_tokens, hold.posted_cached) AS cached,
    coalesce(late.completion_tokens, hold.posted_completion) AS completion,
    hold.charge + coalesce(late.charge, 0) AS charge,
    hold.wholesale_charge + coalesce(late.wholesale_charge, 0) AS wholesale_charge,
    hold.cost + coalesce(late.cost, 0) AS cost"""
_USAGE: Final = Check(
    invariant="I6",
    meaning=_("a posted hold has one usage record, which re-rates to the same amount"),
    query="""
        SELECT hold.tenant_id, 'hold ' || hold.id AS subject,
            CASE
                WHEN count(record.id) OVER (PARTITION BY hold.id) <> (hold.recorded_at IS NOT NULL)::int
                    OR (hold.state = 'posted' AND hold.recorded_at IS NULL
                        AND hold.ended_at < now() - make_interval(secs => %(grace)s))
                THEN hold.state || ', usage records ' || count(record.id) OVER (PARTITION BY hold.id)
                WHEN record.id IS NULL THEN NULL
                WHEN (record.retail_price_id, record.wholesale_price_id, record.cost_price_id)
                    IS DISTINCT FROM (hold.retail_price_id, hold.wholesale_price_id, hold.cost_price_id)
                THEN 'recorded at other prices than held'
                WHEN (record.prompt_tokens, record.cached_tokens, record.completion_tokens, record.free)
                    IS DISTINCT FROM (final.prompt, final.cached, final.completion, hold.free)
                THEN 'recorded with other usage than posted'
                WHEN (record.reseller_id, record.own_share, record.parent_reseller_id, record.parent_share)
                    IS DISTINCT FROM (hold.reseller_id, hold.own_share, hold.parent_reseller_id, hold.parent_share)
                THEN 'recorded with other shares than posted'
                WHEN (record.charge, record.wholesale_charge, record.cost)
                        IS DISTINCT FROM (final.charge, final.wholesale_charge, final.cost)
                    OR (record.charge, record.wholesale_charge, record.cost)
                        IS DISTINCT FROM (rated.charge, rated.wholesale_charge, rated.cost)
                THEN 'charged ' || concat_ws('/', final.charge, final.wholesale_charge, final.cost)
                    || ', recorded ' || concat_ws('/', record.charge, record.wholesale_charge, record.cost)
                    || ', rates to ' || concat_ws('/', rated.charge, rated.wholesale_charge, rated.cost)
            END AS fault
        FROM billing_hold hold
        LEFT JOIN billing_usagerecord record ON record.tenant_id = hold.tenant_id AND record.hold_id = hold.id
        LEFT JOIN billing_priceversion retail ON retail.id = record.retail_price_id
        LEFT JOIN billing_priceversion wholesale ON wholesale.id = record.wholesale_price_id
        LEFT JOIN billing_priceversion cost ON cost.id = record.cost_price_id
        LEFT JOIN billing_usageadjustment late ON late.tenant_id = hold.tenant_id AND late.hold_id = hold.id
        CROSS JOIN LATERAL (SELECT {final}) final
        CROSS JOIN LATERAL (SELECT
            (record.prompt_tokens - record.cached_tokens)::numeric AS fresh,
            record.cached_tokens::numeric AS cached,
            record.completion_tokens::numeric AS completion
        ) used
        CROSS JOIN LATERAL (SELECT
            CASE WHEN record.free THEN 0 ELSE {retail} END AS charge, {wholesale} AS wholesale_charge, {cost} AS cost
        ) rated
        WHERE %(tenant)s::bigint IS NULL OR hold.tenant_id = %(tenant)s""".format(  # noqa: S608  # made of constants
        retail=_AMOUNT.format(price="retail"),
        wholesale=_AMOUNT.format(price="wholesale"),
        cost=_AMOUNT.format(price="cost"),
        final=_FINAL,
    ),
)
# Each order's refunds against what was paid; each refund against its transfers, and each such transfer against its
# refund; what is owed to payers against the refunds under way. The books of a refund: off the user or, as shortfall,
# the tenant, then owed, then paid out.
_REFUNDS: Final = """
        SELECT orders.tenant_id, 'order ' || orders.id AS subject,
            CASE WHEN orders.state <> 'paid' OR sums.amount > orders.price OR sums.credits > orders.credits
                    OR sums.bonus > orders.bonus
                    OR (sums.amount = orders.price) <> ((sums.amount, sums.credits, sums.bonus)
                        = (orders.price, orders.credits, orders.bonus))
                THEN orders.state || ', paid ' || orders.price || ', refunded ' || sums.amount
                    || ' for ' || sums.credits || ', bonus ' || sums.bonus
            END AS fault
        FROM billing_order orders JOIN (
            SELECT tenant_id, order_id, sum(amount) AS amount, sum(credits_back) AS credits, sum(bonus_back) AS bonus
            FROM billing_refund
            WHERE state <> 'failed' AND (%(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s)
            GROUP BY tenant_id, order_id
        ) sums ON sums.tenant_id = orders.tenant_id AND sums.order_id = orders.id
        UNION ALL
        SELECT coalesce(refund.tenant_id, books.tenant_id), coalesce('refund ' || refund.id, 'transfer ' || books.id),
            CASE
                WHEN refund.id IS NULL THEN 'a refund without its row'
                WHEN (coalesce(books.requested, 0), coalesce(books.paid, 0), coalesce(books.failed, 0))
                        <> (1, (refund.state = 'done')::int, (refund.state = 'failed')::int)
                    OR (coalesce(moved.owed, 0), coalesce(moved.taken, 0), coalesce(moved.shortfall, 0),
                        coalesce(moved.paid, 0))
                        <> ((refund.state = 'requested')::int * refund.amount,
                            (refund.state <> 'failed')::int
                                * (refund.credits_back + refund.bonus_back - refund.shortfall),
                            (refund.state <> 'failed')::int * refund.shortfall,
                            (refund.state = 'done')::int * refund.amount)
                THEN refund.state || ' ' || refund.amount || ', transfers '
                    || concat_ws('/', coalesce(books.requested, 0), coalesce(books.paid, 0), coalesce(books.failed, 0))
                    || ', owed ' || coalesce(moved.owed, 0) || ', taken ' || coalesce(moved.taken, 0)
                    || ', shortfall ' || coalesce(moved.shortfall, 0) || ', paid ' || coalesce(moved.paid, 0)
            END
        FROM (
            SELECT refund.*, orders.user_id, CASE refund.kind WHEN 'manual' THEN 'manual'
                ELSE orders.channel || ':' || orders.merchant_id END AS channel
            FROM billing_refund refund
            JOIN billing_order orders ON orders.tenant_id = refund.tenant_id AND orders.id = refund.order_id
            WHERE %(tenant)s::bigint IS NULL OR refund.tenant_id = %(tenant)s
        ) refund FULL JOIN (
            SELECT tenant_id, ref, max(id) AS id, count(*) FILTER (WHERE kind = 'refund') AS requested,
                count(*) FILTER (WHERE kind = 'refund_paid') AS paid,
                count(*) FILTER (WHERE kind = 'refund_failed') AS failed
            FROM billing_transfer
            WHERE kind IN ('refund', 'refund_paid', 'refund_failed')
                AND (%(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s)
            GROUP BY tenant_id, ref
        ) books ON books.tenant_id = refund.tenant_id AND books.ref = refund.id::text
        LEFT JOIN LATERAL (
            SELECT
                sum(entry.amount) FILTER (
                    WHERE account.kind = 'refund_payable' AND account.channel = refund.channel) AS owed,
                -sum(entry.amount) FILTER (
                    WHERE account.kind IN ('user_cash', 'user_gift') AND account.user_id = refund.user_id) AS taken,
                -sum(entry.amount) FILTER (
                    WHERE account.kind = 'shortfall' AND account.channel = 'refund') AS shortfall,
                sum(entry.amount) FILTER (WHERE transfer.kind = 'refund_paid' AND account.kind = 'psp_clearing'
                    AND account.channel = refund.channel) AS paid
            FROM billing_transfer transfer
            JOIN billing_entry entry ON entry.tenant_id = transfer.tenant_id AND entry.transfer_id = transfer.id
            JOIN billing_account account ON account.id = entry.account_id
            WHERE transfer.tenant_id = refund.tenant_id AND transfer.ref = refund.id::text
                AND transfer.kind IN ('refund', 'refund_paid', 'refund_failed')
        ) moved ON refund.id IS NOT NULL
        UNION ALL
        SELECT tenant_id, 'refunds owed by ' || channel,
            CASE WHEN sum(owed) <> sum(wanted) THEN 'owed ' || sum(owed) || ', refunds under way ' || sum(wanted) END
        FROM (
            SELECT tenant_id, channel, posted AS owed, 0 AS wanted FROM billing_account WHERE kind = 'refund_payable'
            UNION ALL
            SELECT refund.tenant_id, CASE refund.kind WHEN 'manual' THEN 'manual'
                ELSE orders.channel || ':' || orders.merchant_id END, 0, refund.amount
            FROM billing_refund refund
            JOIN billing_order orders ON orders.tenant_id = refund.tenant_id AND orders.id = refund.order_id
            WHERE refund.state = 'requested'
        ) side
        WHERE %(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s
        GROUP BY tenant_id, channel"""
# Both sides are joined whole, so that a top-up without its order is found like an order without its top-up. The bonus
# is a gift of its own. A plan's order has no top-up but a sale, and a subscription, and fills no balance.
_ORDERS: Final = Check(
    invariant="I7",
    meaning=_("a paid order has one top-up or plan, refunds of no more than was paid"),
    query="""
        SELECT coalesce(orders.tenant_id, topups.tenant_id) AS tenant_id,
            coalesce('order ' || orders.id, 'transfer ' || topups.id) AS subject,
            CASE
                WHEN orders.id IS NULL THEN CASE topups.kind
                    WHEN 'plan' THEN 'a plan sold without an order' ELSE 'a top-up without an order' END
                WHEN (coalesce(topups.transfers, 0), books.collected, books.cash, books.bonus)
                    <> (orders.times, orders.times * orders.price, orders.times * orders.credits,
                        orders.times * orders.bonus)
                THEN orders.state || CASE orders.kind WHEN 'plan' THEN ', sales ' ELSE ', top-ups ' END
                    || coalesce(topups.transfers, 0) || ' of ' || books.collected
                    || ' for ' || books.cash || ', bonus ' || books.bonus
                WHEN (begun.subscriptions, orders.kind = 'plan' AND books.revenue <> orders.times * orders.price)
                    <> (orders.times * (orders.kind = 'plan')::int, false)
                THEN orders.state || ', subscriptions ' || begun.subscriptions || ', revenue ' || books.revenue
            END AS fault
        FROM (
            SELECT *, (state = 'paid')::int AS times, CASE WHEN plan_id IS NULL THEN 'topup' ELSE 'plan' END AS kind
            FROM billing_order
            WHERE %(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s
        ) orders FULL JOIN (
            SELECT tenant_id, kind, ref, max(id) AS id, count(*) AS transfers
            FROM billing_transfer
            WHERE kind IN ('topup', 'plan') AND (%(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s)
            GROUP BY tenant_id, kind, ref
        ) topups ON topups.tenant_id = orders.tenant_id AND topups.ref = orders.id::text AND topups.kind = orders.kind
        LEFT JOIN LATERAL (
            SELECT
                coalesce(-sum(entry.amount) FILTER (WHERE account.kind = 'psp_clearing'
                    AND account.channel = orders.channel || ':' || orders.merchant_id), 0) AS collected,
                coalesce(sum(entry.amount) FILTER (
                    WHERE account.kind = 'user_cash' AND account.user_id = orders.user_id), 0) AS cash,
                coalesce(sum(entry.amount) FILTER (
                    WHERE account.kind = 'user_gift' AND account.user_id = orders.user_id), 0) AS bonus,
                coalesce(sum(entry.amount) FILTER (WHERE account.kind = 'tenant_revenue'), 0) AS revenue
            FROM billing_transfer transfer
            JOIN billing_entry entry ON entry.tenant_id = transfer.tenant_id AND entry.transfer_id = transfer.id
            JOIN billing_account account ON account.id = entry.account_id
            WHERE transfer.tenant_id = orders.tenant_id
              AND (transfer.kind, transfer.ref)
                  IN (('topup', orders.id::text), ('plan', orders.id::text), ('gift', 'order:' || orders.id))
        ) books ON orders.id IS NOT NULL
        LEFT JOIN LATERAL (
            SELECT count(*) AS subscriptions FROM billing_subscription subscription
            WHERE subscription.tenant_id = orders.tenant_id AND subscription.order_id = orders.id
                AND subscription.user_id = orders.user_id AND subscription.plan_id = orders.plan_id
        ) begun ON orders.id IS NOT NULL
        UNION ALL"""  # noqa: S608  # made of constants
    + _REFUNDS,
)
# Both sides are joined whole, so that a transfer without its code is found like a code without its transfer.
_CODES: Final = Check(
    invariant="I8",
    meaning=_("a code is redeemed at most once"),
    query="""
        SELECT coalesce(code.tenant_id, books.tenant_id) AS tenant_id,
            coalesce('redeem code ' || code.id, 'transfer ' || books.id) AS subject,
            CASE
                WHEN code.id IS NULL THEN 'redeems no code'
                WHEN coalesce(books.transfers, 0) <> code.times
                    OR coalesce(credited.amount, 0) <> code.times * code.amount
                THEN CASE code.times WHEN 0 THEN 'open' ELSE 'redeemed' END || ', transfers '
                    || coalesce(books.transfers, 0) || ', credited ' || coalesce(credited.amount, 0)
                    || ' of ' || code.amount
            END AS fault
        FROM (
            SELECT code.tenant_id, code.id, code.redeemed_by_id, batch.amount, 'user_' || batch.kind AS kind,
                (code.redeemed_at IS NOT NULL)::int AS times
            FROM billing_redeemcode code
            JOIN billing_redeembatch batch ON batch.tenant_id = code.tenant_id AND batch.id = code.batch_id
            WHERE %(tenant)s::bigint IS NULL OR code.tenant_id = %(tenant)s
        ) code FULL JOIN (
            SELECT tenant_id, ref, max(id) AS id, count(*) AS transfers
            FROM billing_transfer
            WHERE kind = 'redeem' AND (%(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s)
            GROUP BY tenant_id, ref
        ) books ON books.tenant_id = code.tenant_id AND books.ref = code.id::text
        LEFT JOIN LATERAL (
            SELECT sum(entry.amount) AS amount
            FROM billing_transfer transfer
            JOIN billing_entry entry ON entry.tenant_id = transfer.tenant_id AND entry.transfer_id = transfer.id
            JOIN billing_account account ON account.id = entry.account_id
            WHERE transfer.tenant_id = books.tenant_id AND transfer.kind = 'redeem' AND transfer.ref = books.ref
                AND account.user_id = code.redeemed_by_id AND account.kind = code.kind
        ) credited ON books.id IS NOT NULL""",
)
# The user's charge is the tenant's revenue, the wholesale charge the resellers' and the platform's, and someone paid
# each of them. What a reseller got follows from the share that the hold pinned.
_SHARES: Final = Check(
    invariant="I9",
    meaning=_("the user's charge is the wholesale charge and the tenant's margin"),
    query=f"""
        SELECT hold.tenant_id, 'hold ' || hold.id AS subject,
            CASE
                WHEN (paid.by_user, paid.to_tenant, paid.by_tenant, paid.to_platform)
                    <> (final.charge, final.charge, final.wholesale_charge, final.wholesale_charge - due.shares)
                THEN 'charges ' || final.charge || ' and ' || final.wholesale_charge
                    || ', paid ' || paid.by_user || ' and ' || paid.by_tenant
                    || ', received ' || paid.to_tenant || ' and ' || paid.to_platform
                    || CASE WHEN due.shares > 0 THEN ', shared ' || due.shares ELSE '' END
                WHEN (hold.own_share, hold.parent_share) <> (rated.own_share, rated.parent_share)
                THEN 'shared ' || hold.own_share || ' and ' || hold.parent_share
                    || ', pinned ' || rated.own_share || ' and ' || rated.parent_share
                WHEN paid.to_resellers <> due.to_resellers
                THEN 'shared ' || due.to_resellers::text || ', received ' || paid.to_resellers::text
            END AS fault
        FROM billing_hold hold LEFT JOIN (
            SELECT transfer.tenant_id, transfer.ref,
                -sum(entry.amount) FILTER (WHERE account.kind IN ('user_gift', 'user_cash')
                    OR (account.kind = 'shortfall' AND account.channel = 'retail')) AS by_user,
                -sum(entry.amount) FILTER (WHERE account.kind = 'tenant_wholesale'
                    OR (account.kind = 'shortfall' AND account.channel = 'wholesale')) AS by_tenant,
                sum(entry.amount) FILTER (WHERE account.kind = 'tenant_revenue') AS to_tenant,
                sum(entry.amount) FILTER (WHERE account.kind = 'platform_revenue') AS to_platform,
                jsonb_object_agg(account.reseller_id, entry.amount)
                    FILTER (WHERE account.kind = 'reseller_accrued') AS to_resellers
            FROM billing_transfer transfer
            JOIN billing_entry entry ON entry.tenant_id = transfer.tenant_id AND entry.transfer_id = transfer.id
            JOIN billing_account account ON account.id = entry.account_id
            WHERE transfer.kind IN ('answer', 'adjustment')
                AND (%(tenant)s::bigint IS NULL OR transfer.tenant_id = %(tenant)s)
            GROUP BY transfer.tenant_id, transfer.ref
        ) books ON books.tenant_id = hold.tenant_id AND books.ref = hold.id::text
        LEFT JOIN billing_usageadjustment late ON late.tenant_id = hold.tenant_id AND late.hold_id = hold.id
        CROSS JOIN LATERAL (SELECT {_FINAL}) final
        CROSS JOIN LATERAL (SELECT
            coalesce(books.by_user, 0) AS by_user, coalesce(books.by_tenant, 0) AS by_tenant,
            coalesce(books.to_tenant, 0) AS to_tenant, coalesce(books.to_platform, 0) AS to_platform,
            coalesce(books.to_resellers, '{{}}') AS to_resellers
        ) paid
        CROSS JOIN LATERAL (SELECT
            div(hold.wholesale_charge::numeric * coalesce(hold.own_ppm, 0), 1000000) AS own_share,
            div(hold.wholesale_charge::numeric * coalesce(hold.parent_ppm, 0), 1000000) AS parent_share
        ) rated
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(part.share), 0) AS shares, coalesce(jsonb_object_agg(part.reseller_id, part.share)
                FILTER (WHERE part.reseller_id IS NOT NULL AND part.share <> 0), '{{}}') AS to_resellers
            FROM (VALUES (hold.reseller_id, hold.own_share), (hold.parent_reseller_id, hold.parent_share))
                part (reseller_id, share)
        ) due
        WHERE %(tenant)s::bigint IS NULL OR hold.tenant_id = %(tenant)s""",  # noqa: S608  # made of constants
)
# A tenant's money may reach the platform's own accounts as revenue and as a reseller's commission, no other way.
_BORDERS: Final = Check(
    invariant="I10",
    meaning=_("no transfer crosses tenants"),
    query="""
        SELECT entry.tenant_id, 'entry ' || entry.id AS subject,
            CASE
                WHEN transfer.tenant_id IS DISTINCT FROM entry.tenant_id
                THEN 'transfer of ' || coalesce('tenant ' || transfer.tenant_id, 'the platform')
                WHEN account.tenant_id IS DISTINCT FROM entry.tenant_id AND NOT (account.tenant_id IS NULL
                    AND account.kind IN ('platform_revenue', 'reseller_pending', 'reseller_available',
                        'reseller_receivable', 'reseller_wallet'))
                THEN account.kind || ' account of ' || coalesce('tenant ' || account.tenant_id, 'the platform')
            END AS fault
        FROM billing_entry entry
        JOIN billing_transfer transfer ON transfer.id = entry.transfer_id
        JOIN billing_account account ON account.id = entry.account_id
        WHERE %(tenant)s::bigint IS NULL OR entry.tenant_id = %(tenant)s""",
)
# Three kinds of things: rewards with their transfers, both joined whole; what users owe of rewards taken back, by what
# they had spent and what was netted since; and invitations that a payment should have vested and did not.
_REWARDS: Final = Check(
    invariant="I12",
    meaning=_("a reward is given at most once and for its row"),
    query="""
        SELECT coalesce(reward.tenant_id, books.tenant_id) AS tenant_id,
            coalesce(reward.subject, 'transfer ' || books.id) AS subject,
            CASE
                WHEN reward.subject IS NULL THEN books.kind || ' for no reward'
                WHEN (coalesce(books.transfers, 0), moved.gift, moved.owed, moved.given)
                    <> (reward.times, reward.times * reward.gift, reward.times * reward.owed,
                        -reward.times * (reward.gift + reward.owed))
                THEN reward.state || ', transfers ' || coalesce(books.transfers, 0) || ', gift ' || moved.gift
                    || ' of ' || reward.gift || ', owed ' || -moved.owed || ' of ' || -reward.owed
            END AS fault
        FROM (SELECT * FROM (
            SELECT tenant_id, 'sign-in ' || id AS subject, user_id, 'sign_in' AS kind, id::text AS ref,
                'signed in' AS state, (amount > 0)::int AS times, amount AS gift, 0 AS owed
            FROM billing_signin
            UNION ALL
            SELECT tenant_id, 'advertisement ticket ' || id, user_id, 'ad', id::text,
                CASE WHEN redeemed_at IS NULL THEN 'open' ELSE 'redeemed' END, (redeemed_at IS NOT NULL)::int, amount, 0
            FROM billing_adticket
            UNION ALL
            SELECT tenant_id, 'invitation reward ' || id, user_id, 'invitation', id::text,
                state, (state IN ('given', 'back_due', 'back'))::int, amount, 0
            FROM billing_invitationreward
            UNION ALL
            SELECT tenant_id, 'invitation reward ' || id, user_id, 'reward_back', 'invitation:' || id,
                state, (state = 'back')::int, -taken, -owed
            FROM billing_invitationreward
        ) kept WHERE %(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s) reward FULL JOIN (
            SELECT tenant_id, kind, ref, max(id) AS id, count(*) AS transfers
            FROM billing_transfer
            WHERE (kind IN ('sign_in', 'ad', 'invitation') OR (kind = 'reward_back' AND ref NOT LIKE 'net:%%'))
                AND (%(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s)
            GROUP BY tenant_id, kind, ref
        ) books ON books.tenant_id = reward.tenant_id AND books.kind = reward.kind AND books.ref = reward.ref
        CROSS JOIN LATERAL (
            SELECT
                coalesce(sum(entry.amount) FILTER (
                    WHERE account.kind = 'user_gift' AND account.user_id = reward.user_id), 0) AS gift,
                coalesce(sum(entry.amount) FILTER (
                    WHERE account.kind = 'shortfall' AND account.channel = 'reward'), 0) AS owed,
                coalesce(sum(entry.amount) FILTER (
                    WHERE account.kind = 'psp_clearing' AND account.channel = 'gift'), 0) AS given
            FROM billing_transfer transfer
            JOIN billing_entry entry ON entry.tenant_id = transfer.tenant_id AND entry.transfer_id = transfer.id
            JOIN billing_account account ON account.id = entry.account_id
            WHERE transfer.tenant_id = books.tenant_id AND transfer.kind = books.kind AND transfer.ref = books.ref
        ) moved
        UNION ALL
        SELECT tenant_id, 'user ' || user_id,
            CASE WHEN sum(owed) <> sum(due) THEN 'owes ' || sum(owed) || ' of rewards, should owe ' || sum(due) END
        FROM (
            SELECT tenant_id, user_id, owed, 0 AS due FROM billing_rewarddebt
            UNION ALL
            SELECT tenant_id, user_id, 0, owed FROM billing_invitationreward WHERE state = 'back'
            UNION ALL
            SELECT transfer.tenant_id, account.user_id, 0, entry.amount
            FROM billing_transfer transfer
            JOIN billing_entry entry ON entry.tenant_id = transfer.tenant_id AND entry.transfer_id = transfer.id
            JOIN billing_account account ON account.id = entry.account_id AND account.kind = 'user_gift'
            WHERE transfer.kind = 'reward_back' AND transfer.ref LIKE 'net:%%'
        ) side
        WHERE %(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s
        GROUP BY tenant_id, user_id
        UNION ALL
        SELECT invitation.tenant_id, 'invitation ' || invitation.id,
            CASE WHEN EXISTS (
                SELECT FROM billing_order orders WHERE orders.tenant_id = invitation.tenant_id
                    AND orders.user_id = invitation.invitee_id AND orders.state = 'paid')
                THEN 'waits for a payment that was made' END
        FROM billing_invitation invitation
        WHERE invitation.state = 'pending' AND (%(tenant)s::bigint IS NULL OR invitation.tenant_id = %(tenant)s)""",
)
# Both sides of a plan's counter are joined whole; a cap's may be gone, with the cap. Free quota is not checked: a day's
# may be taken away without an answer.
_COUNTERS: Final = Check(
    invariant="I13",
    meaning=_("a plan's and a cap's counters say what their answers used"),
    query="""
        SELECT coalesce(counter.tenant_id, taken.tenant_id) AS tenant_id,
            'plan counter ' || coalesce(counter.id::text, 'of subscription ' || taken.subscription_id) AS subject,
            CASE WHEN coalesce(counter.used, 0) <> coalesce(taken.answers, 0)
                THEN 'used ' || coalesce(counter.used, 0) || ', answers ' || coalesce(taken.answers, 0) END AS fault
        FROM (
            SELECT * FROM billing_planuse WHERE %(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s
        ) counter FULL JOIN (
            SELECT tenant_id, subscription_id, quota_group, counter_date, count(*) AS answers
            FROM billing_hold
            WHERE subscription_id IS NOT NULL AND state <> 'voided'
                AND (%(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s)
            GROUP BY tenant_id, subscription_id, quota_group, counter_date
        ) taken ON taken.tenant_id = counter.tenant_id AND taken.subscription_id = counter.subscription_id
            AND taken.quota_group = counter.quota_group AND taken.counter_date = counter.date
        UNION ALL
        SELECT counter.tenant_id, 'cap counter ' || counter.id AS subject,
            CASE WHEN counter.used <> counted.used
                THEN 'used ' || counter.used || ', answers come to ' || counted.used END AS fault
        FROM billing_capuse counter
        JOIN billing_cap cap ON cap.id = counter.cap_id
        LEFT JOIN (
            SELECT hold.tenant_id, unnest(hold.cap_counters) AS counter_id, count(*) AS answers,
                sum(CASE hold.state WHEN 'held' THEN hold.amount ELSE hold.charge END) AS spend
            FROM billing_hold hold
            WHERE cardinality(hold.cap_counters) > 0 AND hold.state <> 'voided'
                AND (%(tenant)s::bigint IS NULL OR hold.tenant_id = %(tenant)s)
            GROUP BY hold.tenant_id, counter_id
        ) holds ON holds.tenant_id = counter.tenant_id AND holds.counter_id = counter.id
        CROSS JOIN LATERAL (
            SELECT coalesce(CASE cap.measure WHEN 'answers' THEN holds.answers ELSE holds.spend END, 0) AS used
        ) counted
        WHERE %(tenant)s::bigint IS NULL OR counter.tenant_id = %(tenant)s""",
)

# Providers' days are China's. An order that was made on or after the first billed day, and whose payment was known
# before the last one began, has its line in some bill by now; of others nothing can be said yet.
_BILLS: Final = Check(
    invariant="I11",
    meaning=_("clearing agrees with the providers' daily bills"),
    query="""
        SELECT line.tenant_id, 'bill line ' || line.id AS subject,
            CASE
                WHEN line.amount > 0 AND (orders.state, orders.price, orders.transaction_id)
                    <> ('paid', line.amount, line.transaction_id)
                THEN 'billed ' || line.amount || ', order ' || orders.id || ' ' || orders.state
                    || ' of ' || orders.price
                WHEN line.amount < 0 AND refund.id IS NULL
                THEN 'paid back ' || -line.amount || ' of order ' || orders.id || ', which the books do not know'
                WHEN line.amount < 0 AND (refund.state, refund.amount) <> ('done', -line.amount)
                THEN 'paid back ' || -line.amount || ', refund ' || refund.id || ' ' || refund.state
                    || ' of ' || refund.amount
            END AS fault
        FROM billing_billline line
        JOIN billing_order orders ON orders.tenant_id = line.tenant_id AND orders.id = line.order_id
        LEFT JOIN billing_refund refund ON refund.tenant_id = line.tenant_id AND refund.id = line.refund_id
        WHERE %(tenant)s::bigint IS NULL OR line.tenant_id = %(tenant)s
        UNION ALL
        SELECT told.tenant_id, told.subject, CASE WHEN told.lines <> 1
            THEN 'ended ' || told.ended_at || ', lines in bills ' || told.lines END
        FROM (
            SELECT orders.tenant_id, orders.merchant_account_id, 'order ' || orders.id AS subject,
                orders.created_at, orders.paid_at AS ended_at,
                (SELECT count(*) FROM billing_billline line WHERE line.tenant_id = orders.tenant_id
                    AND line.order_id = orders.id AND line.amount > 0) AS lines
            FROM billing_order orders WHERE orders.state = 'paid'
            UNION ALL
            SELECT refund.tenant_id, orders.merchant_account_id, 'refund ' || refund.id, refund.created_at,
                refund.ended_at,
                (SELECT count(*) FROM billing_billline line WHERE line.tenant_id = refund.tenant_id
                    AND line.order_id = refund.order_id AND line.refund_id = refund.id)
            FROM billing_refund refund
            JOIN billing_order orders ON orders.tenant_id = refund.tenant_id AND orders.id = refund.order_id
            WHERE refund.state = 'done' AND refund.kind <> 'manual'
        ) told JOIN (
            SELECT tenant_id, merchant_account_id, min(day)::timestamp AT TIME ZONE 'Asia/Shanghai' AS began,
                max(day)::timestamp AT TIME ZONE 'Asia/Shanghai' AS ended
            FROM billing_bill GROUP BY tenant_id, merchant_account_id
        ) billed ON billed.tenant_id = told.tenant_id AND billed.merchant_account_id = told.merchant_account_id
            AND told.created_at >= billed.began AND told.ended_at < billed.ended
        WHERE %(tenant)s::bigint IS NULL OR told.tenant_id = %(tenant)s""",
)
# Both sides are joined whole, so that a fold without its commission is found like a commission without its fold.
# Beside them each reseller's frozen balance, which is what its commissions say.
_COMMISSIONS: Final = Check(
    invariant="R1",
    meaning=_("a commission is folded once and set free once, of its own amount"),
    query="""
        SELECT coalesce(commission.tenant_id, folds.tenant_id) AS tenant_id,
            coalesce('commission ' || commission.id, 'transfer ' || folds.id) AS subject,
            CASE
                WHEN commission.id IS NULL THEN 'folds no commission'
                WHEN (coalesce(-folds.accrued, 0), coalesce(folds.netted, 0), coalesce(folds.frozen, 0))
                    <> (commission.amount, commission.netted, commission.amount - commission.netted)
                THEN 'amount ' || commission.amount || ', netted ' || commission.netted
                    || ', folded ' || coalesce(-folds.accrued, 0) || ', netted ' || coalesce(folds.netted, 0)
                WHEN coalesce(freed.amount, 0) <> CASE commission.state WHEN 'released'
                    THEN commission.amount - commission.netted - commission.taken_back ELSE 0 END
                THEN commission.state || ', amount ' || commission.amount || ', netted ' || commission.netted
                    || ', taken back ' || commission.taken_back || ', set free ' || coalesce(freed.amount, 0)
            END AS fault
        FROM (
            SELECT *, reseller_id || ':' || day AS ref FROM billing_commission
            WHERE %(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s
        ) commission FULL JOIN (
            SELECT transfer.tenant_id, transfer.ref, max(transfer.id) AS id,
                sum(entry.amount) FILTER (WHERE account.kind = 'reseller_accrued') AS accrued,
                sum(entry.amount) FILTER (WHERE account.kind = 'reseller_receivable') AS netted,
                sum(entry.amount) FILTER (WHERE account.kind = 'reseller_pending') AS frozen
            FROM billing_transfer transfer
            JOIN billing_entry entry ON entry.tenant_id = transfer.tenant_id AND entry.transfer_id = transfer.id
            JOIN billing_account account ON account.id = entry.account_id
                AND account.reseller_id::text = split_part(transfer.ref, ':', 1)
            WHERE transfer.kind = 'commission' AND (%(tenant)s::bigint IS NULL OR transfer.tenant_id = %(tenant)s)
            GROUP BY transfer.tenant_id, transfer.ref
        ) folds ON folds.tenant_id = commission.tenant_id AND folds.ref = commission.ref
        LEFT JOIN LATERAL (
            SELECT sum(entry.amount) AS amount
            FROM billing_transfer transfer
            JOIN billing_entry entry ON entry.tenant_id IS NULL AND entry.transfer_id = transfer.id
            JOIN billing_account account ON account.id = entry.account_id
            WHERE transfer.tenant_id IS NULL AND transfer.kind = 'commission_release'
                AND transfer.ref = commission.id::text AND account.kind = 'reseller_available'
                AND account.reseller_id = commission.reseller_id
        ) freed ON commission.id IS NOT NULL
        UNION ALL
        SELECT NULL, 'frozen commission of reseller ' || coalesce(account.reseller_id, frozen.reseller_id),
            CASE WHEN coalesce(account.posted, 0) <> coalesce(frozen.amount, 0)
                THEN 'balance ' || coalesce(account.posted, 0) || ', commissions ' || coalesce(frozen.amount, 0) END
        FROM (SELECT reseller_id, posted FROM billing_account WHERE kind = 'reseller_pending') account
        FULL JOIN (
            SELECT reseller_id, sum(amount - netted - taken_back) AS amount FROM billing_commission
            WHERE state IN ('frozen', 'disputed') GROUP BY reseller_id
        ) frozen ON frozen.reseller_id = account.reseller_id
        WHERE %(tenant)s::bigint IS NULL
        UNION ALL
        SELECT NULL, 'transfer ' || transfer.id,
            CASE WHEN commission.id IS NULL THEN 'sets free no commission' END
        FROM billing_transfer transfer
        LEFT JOIN billing_commission commission ON commission.id::text = transfer.ref
        WHERE transfer.kind = 'commission_release' AND %(tenant)s::bigint IS NULL""",
)
# Of an answer no more is given back than was paid and shared; a note is their sum; a posted one has its transfer.
_BACKS: Final = Check(
    invariant="R2",
    meaning=_("shares are taken back at most once, as refunds noted"),
    query="""
        SELECT hold.tenant_id, 'hold ' || hold.id AS subject,
            CASE WHEN sum(back.spent) > hold.gift_charge + hold.cash_charge
                    OR sum(back.own_back) <> div(hold.own_share * sum(back.spent),
                        greatest(hold.gift_charge + hold.cash_charge, 1))
                    OR sum(back.parent_back) <> div(hold.parent_share * sum(back.spent),
                        greatest(hold.gift_charge + hold.cash_charge, 1))
                THEN 'paid ' || hold.gift_charge + hold.cash_charge || ', given back ' || sum(back.spent)
                    || ', of shares ' || hold.own_share || ' and ' || hold.parent_share
                    || ' taken back ' || sum(back.own_back) || ' and ' || sum(back.parent_back)
            END AS fault
        FROM billing_consumptionback back
        JOIN billing_hold hold ON hold.tenant_id = back.tenant_id AND hold.id = back.hold_id
        WHERE %(tenant)s::bigint IS NULL OR back.tenant_id = %(tenant)s
        GROUP BY hold.tenant_id, hold.id
        UNION ALL
        SELECT coalesce(note.tenant_id, lost.tenant_id),
            coalesce('commission to take back ' || note.id, 'refund ' || lost.ref),
            CASE
                WHEN coalesce(note.amount, 0) <> coalesce(lost.amount, 0)
                THEN 'noted ' || coalesce(note.amount, 0) || ', of answers ' || coalesce(lost.amount, 0)
                WHEN coalesce(taken.by_platform, 0) <> CASE WHEN note.posted_at IS NULL THEN 0 ELSE note.amount END
                    OR coalesce(taken.from_reseller, 0) <> coalesce(taken.by_platform, 0)
                THEN 'amount ' || note.amount || CASE WHEN note.posted_at IS NULL THEN ', not posted' ELSE '' END
                    || ', taken ' || coalesce(taken.from_reseller, 0)
                    || ', received ' || coalesce(taken.by_platform, 0)
            END
        FROM (
            SELECT * FROM billing_commissionback WHERE %(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s
        ) note FULL JOIN (
            SELECT back.tenant_id, back.ref, part.reseller_id, sum(part.amount) AS amount
            FROM billing_consumptionback back
            JOIN billing_hold hold ON hold.tenant_id = back.tenant_id AND hold.id = back.hold_id
            CROSS JOIN LATERAL (VALUES
                (hold.reseller_id, back.own_back),
                (hold.parent_reseller_id, back.parent_back)) part (reseller_id, amount)
            WHERE part.amount > 0 AND (%(tenant)s::bigint IS NULL OR back.tenant_id = %(tenant)s)
            GROUP BY back.tenant_id, back.ref, part.reseller_id
        ) lost ON lost.tenant_id = note.tenant_id AND lost.ref = note.ref AND lost.reseller_id = note.reseller_id
        LEFT JOIN LATERAL (
            SELECT -sum(entry.amount) FILTER (WHERE account.reseller_id = note.reseller_id) AS from_reseller,
                sum(entry.amount) FILTER (WHERE account.kind = 'platform_revenue') AS by_platform
            FROM billing_transfer transfer
            JOIN billing_entry entry ON entry.tenant_id = transfer.tenant_id AND entry.transfer_id = transfer.id
            JOIN billing_account account ON account.id = entry.account_id
            WHERE transfer.tenant_id = note.tenant_id AND transfer.kind = 'commission_back'
                AND transfer.ref = note.id::text
        ) taken ON note.id IS NOT NULL
        UNION ALL
        SELECT transfer.tenant_id, 'transfer ' || transfer.id,
            CASE WHEN note.id IS NULL THEN 'takes back what no refund noted' END
        FROM billing_transfer transfer
        LEFT JOIN billing_commissionback note
            ON note.tenant_id = transfer.tenant_id AND note.id::text = transfer.ref
        WHERE transfer.kind = 'commission_back' AND (%(tenant)s::bigint IS NULL OR transfer.tenant_id = %(tenant)s)""",
)
# The platform's own rows, like the resellers' balances: a tenant's audit has none of them.
_WITHDRAWALS: Final = Check(
    invariant="R3",
    meaning=_("a withdrawal is taken once, then paid or returned once"),
    query="""
        SELECT NULL::bigint AS tenant_id,
            coalesce('withdrawal ' || withdrawal.id, 'withdrawal ' || books.ref) AS subject,
            CASE
                WHEN withdrawal.id IS NULL THEN 'moves money of no withdrawal'
                WHEN (books.asked, books.paid, books.fee, books.returned) IS DISTINCT FROM (
                    withdrawal.amount::numeric,
                    (withdrawal.amount - withdrawal.fee) * (withdrawal.state = 'paid')::int::numeric,
                    withdrawal.fee * (withdrawal.state = 'paid')::int::numeric,
                    withdrawal.amount * (withdrawal.state IN ('failed', 'rejected'))::int::numeric)
                THEN withdrawal.state || ', amount ' || withdrawal.amount || ', fee ' || withdrawal.fee
                    || ', asked ' || coalesce(books.asked, 0) || ', paid ' || coalesce(books.paid, 0)
                    || ' and ' || coalesce(books.fee, 0) || ', returned ' || coalesce(books.returned, 0)
            END AS fault
        FROM billing_withdrawal withdrawal FULL JOIN (
            SELECT transfer.ref,
                coalesce(-sum(entry.amount) FILTER (WHERE transfer.kind = 'withdrawal'
                    AND account.kind = 'reseller_available'), 0) AS asked,
                coalesce(sum(entry.amount) FILTER (WHERE transfer.kind = 'withdrawal_paid'
                    AND account.kind = 'psp_clearing' AND account.channel = 'payout'), 0) AS paid,
                coalesce(sum(entry.amount) FILTER (WHERE transfer.kind = 'withdrawal_paid'
                    AND account.kind = 'platform_revenue'), 0) AS fee,
                coalesce(sum(entry.amount) FILTER (WHERE transfer.kind = 'withdrawal_back'
                    AND account.kind = 'reseller_available'), 0) AS returned
            FROM billing_transfer transfer
            JOIN billing_entry entry ON entry.tenant_id IS NULL AND entry.transfer_id = transfer.id
            JOIN billing_account account ON account.id = entry.account_id
            WHERE transfer.tenant_id IS NULL AND transfer.kind IN ('withdrawal', 'withdrawal_paid', 'withdrawal_back')
            GROUP BY transfer.ref
        ) books ON books.ref = withdrawal.id::text
        WHERE %(tenant)s::bigint IS NULL""",
)
_TOPUPS: Final = Check(
    invariant="R4",
    meaning=_("a confirmed top-up has filled its wallet once"),
    query="""
        SELECT coalesce(topup.tenant_id, books.tenant_id) AS tenant_id,
            coalesce('wallet top-up ' || topup.id, 'transfer ' || books.id) AS subject,
            CASE
                WHEN topup.id IS NULL THEN 'fills a wallet for no request'
                WHEN coalesce(books.amount, 0) <> topup.amount * (topup.state = 'confirmed')::int
                THEN topup.state || ', amount ' || topup.amount || ', filled ' || coalesce(books.amount, 0)
            END AS fault
        FROM (
            SELECT *, 'request:' || id AS ref FROM billing_wallettopup
            WHERE %(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s
        ) topup FULL JOIN (
            SELECT transfer.tenant_id, transfer.ref, max(transfer.id) AS id, max(account.reseller_id) AS reseller_id,
                sum(entry.amount) AS amount
            FROM billing_transfer transfer
            JOIN billing_entry entry ON entry.transfer_id = transfer.id
            JOIN billing_account account ON account.id = entry.account_id
                AND account.kind IN ('tenant_wholesale', 'reseller_wallet')
            WHERE transfer.kind = 'wallet_topup' AND transfer.ref LIKE 'request:%%'
                AND (%(tenant)s::bigint IS NULL OR transfer.tenant_id = %(tenant)s)
            GROUP BY transfer.tenant_id, transfer.ref
        ) books ON books.ref = topup.ref AND coalesce(books.tenant_id, 0) = coalesce(topup.tenant_id, 0)
            AND coalesce(books.reseller_id, 0) = coalesce(topup.reseller_id, 0)""",
)

CHECKS: Final = (
    _TRANSFERS,
    _BALANCES,
    _AVAILABLE,
    _PENDING,
    _ENDS,
    _USAGE,
    _ORDERS,
    _CODES,
    _SHARES,
    _BORDERS,
    _BILLS,
    _REWARDS,
    _COUNTERS,
    _COMMISSIONS,
    _BACKS,
    _WITHDRAWALS,
    _TOPUPS,
)

# The shorter text first, so that numbers in them count up.
_SUMMARY: Final = """
    WITH checked AS MATERIALIZED ({query}),
    shown AS (
        SELECT coalesce(tenant.slug, '') AS slug, subject, fault
        FROM checked LEFT JOIN tenants_tenant tenant ON tenant.id = checked.tenant_id
        WHERE fault IS NOT NULL ORDER BY length(subject), subject LIMIT %(shown)s
    )
    SELECT (SELECT count(*) FROM checked), (SELECT count(fault) FROM checked),
        (SELECT coalesce(json_agg(json_build_array(slug, subject, fault) ORDER BY length(subject), subject), '[]')
         FROM shown)"""


def audit(*, tenant_id: int | None = None, record_grace_seconds: int = RECORD_GRACE_SECONDS) -> list[Result]:
    """Run every check: on one tenant's rows, or on every tenant's and the platform's own."""
    parameters = {
        "tenant": tenant_id,
        "grace": record_grace_seconds,
        "below_zero": [str(kind) for kind in BELOW_ZERO_KINDS],
        "shown": SHOWN,
    }
    return [_run(check, parameters) for check in CHECKS]


def audit_tenant(*, tenant_id: int, record_grace_seconds: int = RECORD_GRACE_SECONDS) -> list[Breach]:
    """Run every check on one tenant's rows; return the first breaches of each."""
    return breaches_of(audit(tenant_id=tenant_id, record_grace_seconds=record_grace_seconds))


def breaches_of(results: Iterable[Result]) -> list[Breach]:
    """Return the breaches that the results name."""
    return [breach for result in results for breach in result.shown]


def _run(check: Check, parameters: dict[str, Any]) -> Result:
    with connection.cursor() as cursor:
        cursor.execute(_SUMMARY.format(query=check.query), parameters)
        rows, breaches, shown = cursor.fetchone()
    return Result(
        check=check,
        rows=rows,
        breaches=breaches,
        shown=[Breach(invariant=check.invariant, tenant=slug, row=row, found=found) for slug, row, found in shown],
    )
