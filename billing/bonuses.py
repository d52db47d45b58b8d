"""Rewards that a user fetches: for signing in, once a day, and for advertisements, by one-time signed tickets.

    sign_in, sign_in_state    today's bonus, and how it stands
    issue_ticket              leave to be rewarded for one advertisement
    redeem_ticket             the reward, once, to whom the ticket was issued

Nobody tells our server that an advertisement was watched to its end. So a ticket bounds what a client can claim: one
user's, not before the time that an advertisement takes, not long after it, once, and so many in a day. Lock order:
the user's accounts, the ticket or sign-in, then the tenant's rows.
"""

import secrets
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.core import signing
from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from billing import ledger, rewards
from billing.models import AdTicket, SignIn
from billing.models.rewards import RewardRules
from billing.quota import QuotaDay
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import EndUser

# How many days ahead a client is told what they bring.
_AHEAD: Final = 7
_SALT: Final = "billing.bonuses.ad"
# How long tickets that nobody redeemed are kept.
_KEEP_TICKETS: Final = timedelta(days=30)


class SignInState(NamedTuple):
    """How a user's sign-ins stand; micro-yuan. `amount` is today's, `coming` the next days' if none is missed."""

    done: bool
    streak: int
    amount: int
    coming: list[int]
    reset_at: datetime


def sign_in_state(*, user: EndUser) -> SignInState:
    """Return how the user's sign-ins stand; raise ProductError NOT_FOUND "reward_not_offered"."""
    rules = rewards.rules_of(tenant_id=user.tenant_id)
    if not any(rules.sign_in_amounts):
        raise rewards.not_offered()
    with scope.tenant(user.tenant_id):
        day = rewards.today(tenant_id=user.tenant_id)
        last = _last(user)
    return _state(rules, day, last)


def _state(rules: RewardRules, day: QuotaDay, last: SignIn | None) -> SignInState:
    done = last is not None and last.date >= day.date
    streak = last.streak if last is not None and (done or _is_next(last, day)) else 0
    today = streak if done else streak + 1
    return SignInState(
        done=done,
        streak=streak,
        amount=last.amount if last is not None and done else rules.sign_in_amount(today),
        coming=[rules.sign_in_amount(today + ahead) for ahead in range(1, _AHEAD)],
        reset_at=day.ends_at,
    )


def sign_in(*, user: EndUser) -> SignInState:
    """Take today's bonus, once in a day of the tenant's time zone; return how it stands then.

    Raises ProductError: INVALID "guest_not_rewarded", NOT_FOUND "reward_not_offered", QUOTA "signed_in_today".
    """
    rewards.require_person(user)
    rules = rewards.rules_of(tenant_id=user.tenant_id)
    if not any(rules.sign_in_amounts):
        raise rewards.not_offered()
    with scope.tenant(user.tenant_id), transaction.atomic():
        ledger.lock_user_accounts(tenant_id=user.tenant_id, user_id=user.pk)
        day, last = rewards.today(tenant_id=user.tenant_id), _last(user)
        # A later day than today's is there where the tenant moved to a time zone that is behind.
        if last is not None and last.date >= day.date:
            raise _done(day)
        streak = last.streak + 1 if last is not None and _is_next(last, day) else 1
        amount = rules.sign_in_amount(streak)
        row, is_new = SignIn.objects.get_or_create(
            tenant_id=user.tenant_id, user=user, date=day.date, defaults={"streak": streak, "amount": amount}
        )
        if not is_new:
            raise _done(day)
        if amount:
            rewards.give(
                tenant_id=user.tenant_id,
                user_id=user.pk,
                amount=amount,
                source="sign_in",
                ref=str(row.pk),
                reason=f"{day.date}, day {streak}",
            )
    return _state(rules, day, row)


def _last(user: EndUser) -> SignIn | None:
    return SignIn.objects.filter(user=user).order_by("-date").first()


def _is_next(last: SignIn, day: QuotaDay) -> bool:
    return last.date == day.date - timedelta(days=1)


def _done(day: QuotaDay) -> ProductError:
    return ProductError(
        ErrorCode.QUOTA,
        _("You have signed in today. Please come again tomorrow."),
        type="signed_in_today",
        scope="user",
        action="wait",
        reset_at=day.ends_at,
        used=1,
        limit=1,
    )


def issue_ticket(*, user: EndUser) -> tuple[AdTicket, str]:
    """Return a ticket for one advertisement, its row and its signed text.

    Raises ProductError: INVALID "guest_not_rewarded", NOT_FOUND "reward_not_offered", QUOTA "ad_limit_reached".
    """
    rewards.require_person(user)
    rules = rewards.rules_of(tenant_id=user.tenant_id)
    if not rules.ad_amount:
        raise rewards.not_offered()
    with scope.tenant(user.tenant_id):
        _require_below_limit(user, rules, rewards.today(tenant_id=user.tenant_id))
        made = AdTicket.objects.create(
            tenant_id=user.tenant_id,
            user=user,
            nonce=secrets.token_hex(16),
            amount=rules.ad_amount,
            ready_at=Now() + timedelta(seconds=rules.ad_seconds),
            expires_at=Now() + timedelta(seconds=rules.ad_ticket_seconds),
        )
        return AdTicket.objects.get(pk=made.pk), _signed(made)


def redeem_ticket(*, user: EndUser, ticket: str) -> AdTicket:
    """Reward the user whom a ticket was issued to, once.

    Raises ProductError: INVALID "ad_ticket_unknown" (forged, another user's or another tenant's), "ad_ticket_used",
    "ad_ticket_early" or "ad_ticket_expired"; QUOTA "ad_limit_reached".
    """
    with scope.tenant(user.tenant_id), transaction.atomic():
        found = _find(user, ticket)
        # Locked first, so that a user's own tickets come one after the other and the limit counts them all.
        ledger.lock_user_accounts(tenant_id=user.tenant_id, user_id=user.pk)
        day = rewards.today(tenant_id=user.tenant_id)
        _require_below_limit(user, rewards.rules_of(tenant_id=user.tenant_id), day)
        good = AdTicket.objects.filter(pk=found.pk, redeemed_at=None, ready_at__lte=Now(), expires_at__gt=Now())
        if good.update(redeemed_at=Now(), redeemed_on=day.date) != 1:
            raise _why_not(found)
        rewards.give(
            tenant_id=user.tenant_id,
            user_id=user.pk,
            amount=found.amount,
            source="ad",
            ref=str(found.pk),
            reason=f"ticket {found.pk}",
        )
        return AdTicket.objects.get(pk=found.pk)


def forget_tickets() -> int:
    """Delete tickets that nobody redeemed in time; return how many."""
    with scope.platform("tickets that are worth nothing any more, in every tenant"):
        return AdTicket.objects.filter(redeemed_at=None, expires_at__lt=Now() - _KEEP_TICKETS).delete()[0]


def _signed(ticket: AdTicket) -> str:
    return signing.Signer(salt=_SALT).sign(f"{ticket.tenant_id}.{ticket.user_id}.{ticket.nonce}")


def _find(user: EndUser, text: str) -> AdTicket:
    """Return the row of the user's own ticket; whose another one is, is nobody's business."""
    try:
        tenant_id, user_id, nonce = signing.Signer(salt=_SALT).unsign(text).split(".")
    except (signing.BadSignature, ValueError):
        raise _unknown() from None
    found = AdTicket.objects.filter(user=user, nonce=nonce).first()
    if found is None or (tenant_id, user_id) != (str(user.tenant_id), str(user.pk)):
        raise _unknown()
    return found


def _unknown() -> ProductError:
    msg = _("This ticket is not yours. Please watch another advertisement.")
    return ProductError(ErrorCode.INVALID, msg, type="ad_ticket_unknown", scope="ticket")


def _why_not(ticket: AdTicket) -> ProductError:
    """Say what kept a ticket from being redeemed."""
    if AdTicket.objects.filter(pk=ticket.pk, redeemed_at__isnull=False).exists():
        msg = _("This advertisement was rewarded before.")
        return ProductError(ErrorCode.INVALID, msg, type="ad_ticket_used", scope="ticket")
    if AdTicket.objects.filter(pk=ticket.pk, expires_at__lte=Now()).exists():
        msg = _("This ticket has expired. Please watch another advertisement.")
        return ProductError(ErrorCode.INVALID, msg, type="ad_ticket_expired", scope="ticket")
    return ProductError(
        ErrorCode.INVALID,
        _("Please watch the advertisement to its end."),
        type="ad_ticket_early",
        scope="ticket",
        action="wait",
        reset_at=ticket.ready_at,
    )


def _require_below_limit(user: EndUser, rules: RewardRules, day: QuotaDay) -> None:
    """Refuse beyond the day's limit."""
    used = AdTicket.objects.filter(user=user, redeemed_on=day.date).count()
    if used >= rules.ads_per_day:
        raise ProductError(
            ErrorCode.QUOTA,
            _("You have watched as many advertisements as are rewarded in a day. Please come again tomorrow."),
            type="ad_limit_reached",
            scope="user",
            action="wait",
            reset_at=day.ends_at,
            used=used,
            limit=rules.ads_per_day,
        )
