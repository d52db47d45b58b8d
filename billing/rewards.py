"""Rewards in gift balance: the tenant's rules, how each is given once, and invitations, which vest by a payment.

    rules_of                what a tenant gives away
    give                    credit a reward, less what the user owes of rewards that were taken back
    code_of, overview       a user's own invitation code; whom it brought
    accept_invitation       bind a new user to who invited them
    vest_invitation         note the invited user's first payment, in that payment's transaction
    take_back_invitation    note that it was refunded
    settle_rewards          give and take back what was noted, in all tenants

An invitation's reward is for two users' balances and begins in a third party's transaction, the payment's. So that no
two transactions can wait for each other crosswise, payment and refund only note what is due, on rows that nobody else
holds for long; `settle_rewards` moves the money later, one user in each transaction. Lock order: the invited user's row
(`EndUser`), the tenant's rules, the invitation, its rewards, then as in `billing.ledger`; what a user owes is locked
behind the user's accounts. `vest_invitation` and `take_back_invitation` therefore come before the ledger in a
caller's transaction.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import structlog
from django.db import IntegrityError, connection, transaction
from django.db.models import Case, CharField, Exists, F, OuterRef, Prefetch, QuerySet, Sum, Value, When
from django.db.models.functions import Cast, Now
from django.utils.translation import gettext_lazy as _

from billing import codes, ledger
from billing.models import (
    AccountKind,
    Invitation,
    InvitationCode,
    InvitationReward,
    Order,
    Refund,
    RewardDebt,
    RewardOrigin,
    RewardRules,
    Transfer,
)
from billing.models.rewards import MAX_WINDOW_DAYS
from billing.origins import Origin
from billing.quota import QuotaDay, quota_day
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import EndUser, Tenant

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

log = structlog.get_logger(__name__)

# How long after signing up a user may still say who invited them.
ACCEPT_HOURS: Final = 24
CODE_LENGTH: Final = 8
LINK: Final = "/i/"
SHOWN: Final = 50
ACTOR: Final = "rewards"
_BATCH: Final = 200

RewardSource = Literal["sign_in", "invitation", "ad"]
Standing = Literal["waiting", "on_its_way", "rewarded", "not_rewarded", "taken_back"]

_State = Invitation.State
_Reward = InvitationReward.State
_OPEN: Final = (_Reward.DUE, _Reward.BACK_DUE)


class Invited(NamedTuple):
    """Someone whom a user has brought, as that user sees it."""

    invitation: Invitation
    standing: Standing


class Overview(NamedTuple):
    """What a user's invitations came to; micro-yuan. `people` are the latest."""

    invited: int
    waiting: int
    rewarded: int
    earned: int
    owed: int
    people: list[Invited]


def rules_of(*, tenant_id: int) -> RewardRules:
    """Return the tenant's rules; where it has none, unsaved ones with everything off."""
    with scope.tenant(tenant_id):
        return RewardRules.objects.first() or RewardRules(tenant_id=tenant_id)


def today(*, tenant_id: int) -> QuotaDay:
    """Return the day in the tenant's time zone, by the database's clock."""
    now, zone = Tenant.objects.values_list(Now(), "timezone").get(pk=tenant_id)
    return quota_day(now=now, zone=zone)


def require_person(user: EndUser) -> None:
    """Refuse a guest: anybody can be any number of them. Raises ProductError INVALID "guest_not_rewarded"."""
    if user.is_guest:
        raise ProductError(
            ErrorCode.INVALID,
            _("Rewards are for registered users. Please register."),
            type="guest_not_rewarded",
            scope="user",
            action="login",
        )


def not_offered() -> ProductError:
    """Return the refusal of a reward that the tenant does not give."""
    return ProductError(
        ErrorCode.NOT_FOUND, _("This reward is not offered here."), type="reward_not_offered", scope="tenant"
    )


def give(  # noqa: PLR0913  who, what, and the things an auditor asks for
    *, tenant_id: int, user_id: int, amount: int, source: RewardSource, ref: str, reason: str
) -> Transfer:
    """Credit a reward to the gift balance and net what the user owes with it; within the caller's transaction.

    The credit is always the whole reward, and what is netted a transfer of its own.
    """
    ledger.lock_user_accounts(tenant_id=tenant_id, user_id=user_id)
    debt = RewardDebt.objects.select_for_update().filter(user_id=user_id, owed__gt=0).first()
    transfer = ledger.credit_user(
        tenant_id=tenant_id,
        user_id=user_id,
        amount=amount,
        kind="gift",
        source=source,
        ref=ref,
        reason=reason,
        actor=ACTOR,
    )
    if debt is not None:
        _net(debt, transfer, amount)
    return transfer


def _net(debt: RewardDebt, transfer: Transfer, amount: int) -> None:
    """Take what is owed out of a reward that was just credited."""
    part = min(debt.owed, amount)
    gift = ledger.lock_user_accounts(tenant_id=debt.tenant_id, user_id=debt.user_id).gift
    owed = ledger.channel_account(tenant_id=debt.tenant_id, kind=AccountKind.SHORTFALL, channel=ledger.REWARD_SHORTFALL)
    ledger.move(
        tenant_id=debt.tenant_id,
        kind=Transfer.Kind.REWARD_BACK,
        ref=f"net:{transfer.pk}",
        movements=[ledger.Movement(account=gift, amount=-part), ledger.Movement(account=owed, amount=part)],
        reason=transfer.reason,
        actor=ACTOR,
    )
    RewardDebt.objects.filter(pk=debt.pk).update(owed=F("owed") - part)


def remember(*, user: EndUser, origin: Origin) -> None:
    """Keep that a user was seen on a device and at an address, in the user's tenant's scope."""
    if not (origin.device or origin.address):
        return
    RewardOrigin.objects.bulk_create(
        [
            RewardOrigin(
                tenant_id=user.tenant_id,
                user=user,
                device_digest=origin.device,
                address_digest=origin.address,
                seen_at=Now(),
            )
        ],
        update_conflicts=True,
        unique_fields=["tenant", "user", "device_digest", "address_digest"],
        update_fields=["seen_at"],
    )


def forget_origins() -> int:
    """Delete what is older than any tenant's window; return how many rows."""
    with scope.platform("what no tenant needs any more"):
        old = RewardOrigin.objects.filter(seen_at__lt=Now() - timedelta(days=MAX_WINDOW_DAYS))
        return old.delete()[0]


def code_of(*, user: EndUser) -> str:
    """Return the user's invitation code, made at the first look; in the user's tenant's scope."""
    require_person(user)
    while True:
        try:
            with transaction.atomic():
                # Two looks at once: one makes, the other finds. A code that is taken is drawn again.
                mine, _made = InvitationCode.objects.get_or_create(
                    tenant_id=user.tenant_id, user=user, defaults={"code": codes.new_code(length=CODE_LENGTH)}
                )
        except IntegrityError:
            continue
        return mine.code


def overview(*, user: EndUser) -> Overview:
    """Return what the user's invitations came to; in the user's tenant's scope."""
    mine = Invitation.objects.filter(inviter=user)
    rewards = InvitationReward.objects.filter(user=user, side=InvitationReward.Side.INVITER)
    given = rewards.filter(state=_Reward.GIVEN)
    latest = mine.select_related("invitee").prefetch_related(Prefetch("rewards", queryset=rewards)).order_by("-pk")
    return Overview(
        invited=mine.count(),
        waiting=mine.filter(state=_State.PENDING).count(),
        rewarded=given.count(),
        earned=given.aggregate(sum=Sum("amount"))["sum"] or 0,
        owed=sum(RewardDebt.objects.filter(user=user).values_list("owed", flat=True)),
        people=[Invited(row, _standing(row)) for row in latest[:SHOWN]],
    )


def _standing(invitation: Invitation) -> Standing:
    """Say how far an invitation is, to the inviter."""
    if invitation.state == _State.PENDING:
        return "waiting" if invitation.inviter_amount else "not_rewarded"
    reward = next(iter(invitation.rewards.all()), None)
    if reward is None or reward.state == _Reward.REFUSED:
        return "not_rewarded"
    if invitation.state == _State.TAKEN_BACK:
        return "taken_back"
    return "on_its_way" if reward.state == _Reward.DUE else "rewarded"


def accept_invitation(*, user: EndUser, code: str, origin: Origin) -> Invitation:
    """Bind a new user to the owner of `code`, once; the same code again gives the same invitation.

    Where device or address say that it is a farm, the invitation is kept and will not be rewarded: staff see why.

    Raises ProductError: INVALID "guest_not_rewarded", "invitation_code_unknown" (another tenant's code among them),
    "invitation_own", "invitation_known", "invitation_too_late", "invitation_after_payment" or "invitation_circular";
    NOT_FOUND "reward_not_offered".
    """
    require_person(user)
    with scope.tenant(user.tenant_id), transaction.atomic():
        inviter_id = _inviter_of(code)
        # The user's row makes a payment of theirs come before or after this. The rules' row makes the tenant's
        # acceptances come one after the other: limits count them all, and no two close a circle.
        EndUser.objects.select_for_update(no_key=True).values_list("pk").get(pk=user.pk)
        rules = RewardRules.objects.select_for_update(no_key=True).first()
        known = Invitation.objects.filter(invitee=user).first()
        if known is not None and known.inviter_id == inviter_id:
            return known
        if rules is None or not rules.offers_invitations:
            raise not_offered()
        _require_new(user, inviter_id, known)
        refusal = _refusal(rules, inviter_id, origin)
        remember(user=user, origin=origin)
        return Invitation.objects.create(
            tenant_id=user.tenant_id,
            inviter_id=inviter_id,
            invitee=user,
            state=_State.REFUSED if refusal else _State.PENDING,
            refusal=refusal,
            inviter_amount=rules.inviter_amount,
            invitee_amount=rules.invitee_amount,
            device_digest=origin.device,
            address_digest=origin.address,
        )


def _inviter_of(typed: str) -> int:
    code = codes.normal(typed, length=CODE_LENGTH, link=LINK)
    found = InvitationCode.objects.filter(code=code, user__is_active=True).first() if code else None
    if found is None:
        raise invalid(_("This invitation code is not known here."), kind="invitation_code_unknown", where="code")
    return found.user_id


def _require_new(user: EndUser, inviter_id: int, known: Invitation | None) -> None:
    """Refuse whoever is not a new user that someone else has brought."""
    if known is not None:
        raise invalid(_("You have told us before who invited you."), kind="invitation_known", where="user")
    if inviter_id == user.pk:
        raise invalid(_("This is your own invitation code."), kind="invitation_own", where="code")
    young = EndUser.objects.filter(pk=user.pk, created_at__gt=Now() - timedelta(hours=ACCEPT_HOURS))
    if not young.exists():
        raise invalid(_("Only new users can accept an invitation."), kind="invitation_too_late", where="user")
    if Order.objects.filter(user=user, state=Order.State.PAID).exists():
        raise invalid(
            _("An invitation must be accepted before the first payment."), kind="invitation_after_payment", where="user"
        )
    if _invited_by(user, inviter_id):
        raise invalid(_("You have invited this person yourself."), kind="invitation_circular", where="code")


def invalid(msg: "_StrOrPromise", *, kind: str, where: str) -> ProductError:
    """Return a refusal of type `kind`."""
    return ProductError(ErrorCode.INVALID, msg, type=kind, scope=where)


_ABOVE: Final = """
WITH RECURSIVE above AS (
    SELECT %(start)s::bigint AS user_id
    UNION
    SELECT invitation.inviter_id FROM billing_invitation invitation JOIN above
        ON invitation.tenant_id = %(tenant)s AND invitation.invitee_id = above.user_id
)
SELECT count(*) FROM above WHERE user_id = %(user)s
"""


def _invited_by(user: EndUser, other_id: int) -> bool:
    """Whether `user` invited the other, or who invited them, or so on."""
    with connection.cursor() as cursor:
        cursor.execute(_ABOVE, {"start": other_id, "tenant": user.tenant_id, "user": user.pk})
        return bool(cursor.fetchone()[0])


def _refusal(rules: RewardRules, inviter_id: int, origin: Origin) -> Invitation.Refusal:
    """Say why an invitation from there is not rewarded, if so. What is refused does not count against the limits."""
    since = Now() - timedelta(days=rules.window_days)
    seen = RewardOrigin.objects.filter(user_id=inviter_id, seen_at__gt=since)
    counted = Invitation.objects.exclude(state=_State.REFUSED).filter(created_at__gt=since)
    devices, addresses = origin.devices, origin.addresses
    if seen.filter(device_digest__in=devices).exists():
        return Invitation.Refusal.INVITER_DEVICE
    if seen.filter(address_digest__in=addresses).exists():
        return Invitation.Refusal.INVITER_ADDRESS
    if counted.filter(device_digest__in=devices).count() >= rules.per_device:
        return Invitation.Refusal.DEVICE_LIMIT
    if counted.filter(address_digest__in=addresses).count() >= rules.per_address:
        return Invitation.Refusal.ADDRESS_LIMIT
    return Invitation.Refusal.NONE


def vest_invitation(*, tenant_id: int, invitee_id: int, ref: str) -> bool:
    """Note a user's payment `ref`: if it is their first since they were invited, rewards are due; True if so.

    Within the payment's transaction and before it touches the ledger. Every way by which users pay must call this;
    the audit (I12) finds a paid order whose user's invitation still waits.
    """
    with scope.tenant(tenant_id):
        EndUser.objects.select_for_update(no_key=True).values_list("pk").get(pk=invitee_id)
        found = Invitation.objects.filter(invitee_id=invitee_id, state=_State.PENDING).first()
        if found is None:
            return False
        pending = Invitation.objects.filter(pk=found.pk, state=_State.PENDING)
        if pending.update(state=_State.VESTED, payment_ref=ref, vested_at=Now()) != 1:
            raise ledger.LedgerError(f"invitation {found.pk} vested twice")
        InvitationReward.objects.bulk_create(_rewards(found))
    return True


def _rewards(invitation: Invitation) -> Iterable[InvitationReward]:
    """Yield what each side was promised."""
    side = InvitationReward.Side
    for which, user_id, amount in (
        (side.INVITER, invitation.inviter_id, invitation.inviter_amount),
        (side.INVITEE, invitation.invitee_id, invitation.invitee_amount),
    ):
        if amount:
            yield InvitationReward(
                tenant_id=invitation.tenant_id, invitation=invitation, side=which, user_id=user_id, amount=amount
            )


def take_back_invitation(*, tenant_id: int, invitee_id: int, ref: str, reason: str) -> bool:
    """Note that the payment `ref` was refunded: if an invitation vested by it, its rewards go back; True if so.

    What was not given yet is cancelled at once; the rest is taken back by `settle_rewards`. In a transaction of its
    own, or within a caller's that has not touched the ledger yet. Told again it does nothing.
    """
    with scope.tenant(tenant_id), transaction.atomic():
        vested = Invitation.objects.filter(invitee_id=invitee_id, payment_ref=ref, state=_State.VESTED)
        if vested.update(state=_State.TAKEN_BACK, taken_back_at=Now(), back_reason=reason) != 1:
            return False
        # One statement: what is given meanwhile is judged as it stands after that.
        InvitationReward.objects.filter(
            invitation__invitee_id=invitee_id, state__in=[_Reward.DUE, _Reward.GIVEN]
        ).update(state=Case(When(state=_Reward.DUE, then=Value(_Reward.CANCELLED)), default=Value(_Reward.BACK_DUE)))
    return True


def settle_rewards() -> int:
    """Give and take back what is due, in all tenants; return how many rewards. Several may run at once."""
    _notice_refunds()
    with scope.platform("rewards that are due, in every tenant"):
        due = list(_due().order_by("pk").values_list("tenant_id", "pk")[:_BATCH])
    settled = 0
    for tenant_id, reward_id in due:
        try:
            settled += settle_reward(tenant_id=tenant_id, reward_id=reward_id)
        except ledger.LedgerError:
            log.exception("reward cannot be settled", reward=reward_id)
    return settled


def _notice_refunds() -> None:
    """Take back invitations whose vesting payment has been refunded, in part or whole, since the last look.

    Looked for here and not told by the refund: its transaction has locked users' rows by then.
    """
    with scope.platform("invitations whose payment was refunded, in every tenant"):
        done = Refund.objects.filter(tenant_id=OuterRef("tenant_id"), state=Refund.State.DONE)
        refunded = done.annotate(paid=Cast("order_id", CharField())).filter(paid=OuterRef("payment_ref"))
        vested = Invitation.objects.filter(Exists(refunded), state=_State.VESTED)
        found = list(vested.values_list("tenant_id", "invitee_id", "payment_ref")[:_BATCH])
    for tenant_id, invitee_id, ref in found:
        take_back_invitation(tenant_id=tenant_id, invitee_id=invitee_id, ref=ref, reason="refund")


def settle_reward(*, tenant_id: int, reward_id: int) -> bool:
    """Give one reward, or take it back; False if nothing was due on it."""
    with scope.tenant(tenant_id), transaction.atomic():
        reward = _due().select_for_update().filter(pk=reward_id).first()
        if reward is None:
            return False
        if reward.state == _Reward.DUE:
            _give_or_refuse(reward)
        else:
            _take_back(reward)
    return True


def _due() -> QuerySet[InvitationReward]:
    return InvitationReward.objects.filter(state__in=_OPEN)


def _give_or_refuse(reward: InvitationReward) -> None:
    """Give a locked reward, unless a limit of its user is reached."""
    # Locked first, so that a user's rewards come one after the other and the limits below count them all.
    ledger.lock_user_accounts(tenant_id=reward.tenant_id, user_id=reward.user_id)
    day = today(tenant_id=reward.tenant_id)
    row = InvitationReward.objects.filter(pk=reward.pk)
    if refusal := _over_limit(reward, day):
        row.update(state=_Reward.REFUSED, refusal=refusal)
        return
    row.update(state=_Reward.GIVEN, given_on=day.date)
    give(
        tenant_id=reward.tenant_id,
        user_id=reward.user_id,
        amount=reward.amount,
        source="invitation",
        ref=str(reward.pk),
        reason=f"invitation {reward.invitation_id}",
    )


def _over_limit(reward: InvitationReward, day: QuotaDay) -> InvitationReward.Refusal:
    """Say why a reward is not given, if so. The limits are the inviter's; what was taken back counts as well."""
    refusal = InvitationReward.Refusal
    if not EndUser.objects.filter(pk=reward.user_id, is_active=True).exists():
        return refusal.BLOCKED
    if reward.side == InvitationReward.Side.INVITEE:
        return refusal.NONE
    rules = rules_of(tenant_id=reward.tenant_id)
    given = InvitationReward.objects.filter(user_id=reward.user_id, side=reward.side, given_on__isnull=False)
    if given.count() >= rules.inviter_total:
        return refusal.TOTAL_LIMIT
    return refusal.DAY_LIMIT if given.filter(given_on=day.date).count() >= rules.inviter_per_day else refusal.NONE


def _take_back(reward: InvitationReward) -> None:
    """Take a locked reward back out of what is available of the gift balance; the user owes the rest."""
    tenant_id = reward.tenant_id
    gift = ledger.lock_user_accounts(tenant_id=tenant_id, user_id=reward.user_id).gift
    taken = min(reward.amount, gift.available)
    owed = reward.amount - taken
    InvitationReward.objects.filter(pk=reward.pk).update(state=_Reward.BACK, taken=taken, owed=owed)
    if owed:
        debt, is_new = RewardDebt.objects.get_or_create(
            tenant_id=tenant_id, user_id=reward.user_id, defaults={"owed": owed}
        )
        if not is_new:
            RewardDebt.objects.filter(pk=debt.pk).update(owed=F("owed") + owed)
    ledger.move(
        tenant_id=tenant_id,
        kind=Transfer.Kind.REWARD_BACK,
        ref=f"invitation:{reward.pk}",
        movements=[
            ledger.Movement(account=gift, amount=-taken),
            ledger.Movement(
                account=ledger.clearing_account(tenant_id=tenant_id, channel=ledger.GIFT), amount=reward.amount
            ),
            ledger.Movement(
                account=ledger.channel_account(
                    tenant_id=tenant_id, kind=AccountKind.SHORTFALL, channel=ledger.REWARD_SHORTFALL
                ),
                amount=-owed,
            ),
        ],
        reason=f"invitation {reward.invitation_id}",
        actor=ACTOR,
    )
