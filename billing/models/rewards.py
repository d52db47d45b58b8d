"""What users are given for signing in, inviting and watching: a tenant's rules, and a row for each reward.

Amounts are whole micro-yuan (¥1 = 1,000,000). `billing.rewards` is the only writer, but for the rules. Devices and
addresses are kept as keyed digests (`billing.origins`), never in clear.
"""

from typing import ClassVar, Final

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Func, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from tenants.models import Tenant
from tenants.scope import SameTenant, TenantOwned

MAX_REWARD: Final = 1000 * 1_000_000  # ¥1,000: more for one reward is a typing mistake
MAX_STREAK: Final = 31
MAX_PER_DAY: Final = 1000
MAX_TOTAL: Final = 100_000
MAX_WINDOW_DAYS: Final = 90
MAX_TICKET_SECONDS: Final = 24 * 60 * 60

# An empty array has no element that is out of bounds.
_WITHIN: Final = f"(0 <= ALL(%(expressions)s) AND {MAX_REWARD} >= ALL(%(expressions)s))"
_DIGEST: Final = r"^([0-9a-f]{64})?$"


class RewardRules(TenantOwned):
    """What a tenant gives away, and how often. An amount of 0 turns a reward off; all are off at first."""

    tenant = models.OneToOneField(  # the same key, but one to one
        Tenant, verbose_name=_("tenant"), on_delete=models.PROTECT, related_name="+"
    )
    sign_in_amounts = ArrayField(
        models.BigIntegerField(),
        verbose_name=_("sign-in, micro-yuan for each day in a row"),
        size=MAX_STREAK,
        default=list,
        blank=True,
    )
    inviter_amount = models.BigIntegerField(_("for the inviter, micro-yuan"), default=0)
    invitee_amount = models.BigIntegerField(_("for the invited user, micro-yuan"), default=0)
    inviter_per_day = models.IntegerField(
        _("rewarded invitations of a user in a day"),
        default=5,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_PER_DAY)],
    )
    inviter_total = models.IntegerField(
        _("rewarded invitations of a user in all"),
        default=100,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_TOTAL)],
    )
    per_device = models.IntegerField(
        _("rewarded invitations from a device"),
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_PER_DAY)],
    )
    per_address = models.IntegerField(
        _("rewarded invitations from a network address"),
        default=3,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_PER_DAY)],
    )
    window_days = models.IntegerField(
        _("days for which devices and addresses are remembered"),
        default=30,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_WINDOW_DAYS)],
    )
    ad_amount = models.BigIntegerField(_("for an advertisement, micro-yuan"), default=0)
    ads_per_day = models.IntegerField(
        _("rewarded advertisements of a user in a day"),
        default=5,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_PER_DAY)],
    )
    ad_seconds = models.IntegerField(
        _("seconds that an advertisement takes at least"),
        default=15,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_TICKET_SECONDS)],
    )
    ad_ticket_seconds = models.IntegerField(
        _("seconds after which an advertisement's ticket expires"),
        default=600,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_TICKET_SECONDS)],
    )

    class Meta(TenantOwned.Meta):
        verbose_name = _("rules for rewards")
        verbose_name_plural = _("rules for rewards")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            models.CheckConstraint(
                condition=Q(sign_in_amounts__len__lte=MAX_STREAK), name="billing_rewardrules_sign_in_days"
            ),
            models.CheckConstraint(
                condition=Func(F("sign_in_amounts"), template=_WITHIN, output_field=models.BooleanField()),
                name="billing_rewardrules_sign_in",
            ),
            models.CheckConstraint(
                condition=Q(
                    inviter_amount__gte=0,
                    inviter_amount__lte=MAX_REWARD,
                    invitee_amount__gte=0,
                    invitee_amount__lte=MAX_REWARD,
                    ad_amount__gte=0,
                    ad_amount__lte=MAX_REWARD,
                ),
                name="billing_rewardrules_amounts",
            ),
            models.CheckConstraint(
                condition=Q(
                    inviter_per_day__gte=1,
                    inviter_per_day__lte=MAX_PER_DAY,
                    inviter_total__gte=1,
                    inviter_total__lte=MAX_TOTAL,
                    per_device__gte=1,
                    per_device__lte=MAX_PER_DAY,
                    per_address__gte=1,
                    per_address__lte=MAX_PER_DAY,
                    window_days__gte=1,
                    window_days__lte=MAX_WINDOW_DAYS,
                    ads_per_day__gte=1,
                    ads_per_day__lte=MAX_PER_DAY,
                ),
                name="billing_rewardrules_limits",
            ),
            models.CheckConstraint(
                condition=Q(
                    ad_seconds__gte=1,
                    ad_ticket_seconds__gt=F("ad_seconds"),
                    ad_ticket_seconds__lte=MAX_TICKET_SECONDS,
                ),
                name="billing_rewardrules_ticket",
                violation_error_message=_("A ticket must live for longer than its advertisement takes."),
            ),
        ]

    @property
    def offers_invitations(self) -> bool:
        """Whether either side of an invitation is rewarded."""
        return bool(self.inviter_amount or self.invitee_amount)

    def sign_in_amount(self, streak: int) -> int:
        """Return what the streak's n-th day brings, from 1, micro-yuan; after the last day the row begins anew."""
        amounts: list[int] = self.sign_in_amounts
        return amounts[(streak - 1) % len(amounts)] if amounts else 0


class SignIn(TenantOwned):
    """A user's sign-in on a day, once; `streak` counts the days in a row."""

    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    date = models.DateField(_("day in the tenant's time zone"))
    streak = models.IntegerField(_("days in a row"))
    amount = models.BigIntegerField(_("amount, micro-yuan"))
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        verbose_name = _("sign-in")
        verbose_name_plural = _("sign-ins")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="billing_signin_user_fk"),
            models.UniqueConstraint(fields=["tenant", "user", "date"], name="billing_signin_day"),
            models.CheckConstraint(
                condition=Q(streak__gte=1, amount__gte=0, amount__lte=MAX_REWARD), name="billing_signin_amount"
            ),
        ]


class RewardOrigin(TenantOwned):
    """Where a user was seen asking for rewards: what tells an inviter's own second account."""

    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    device_digest = models.CharField(_("digest of the device"), max_length=64, blank=True, default="")
    address_digest = models.CharField(_("digest of the address"), max_length=64, blank=True, default="")
    seen_at = models.DateTimeField(_("seen"), db_default=Now())

    class Meta(TenantOwned.Meta):
        verbose_name = _("origin of a user")
        verbose_name_plural = _("origins of users")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="billing_rewardorigin_user_fk"),
            models.UniqueConstraint(
                fields=["tenant", "user", "device_digest", "address_digest"], name="billing_rewardorigin_once"
            ),
            models.CheckConstraint(
                condition=Q(device_digest__regex=_DIGEST, address_digest__regex=_DIGEST),
                name="billing_rewardorigin_hashed",
            ),
        ]
        # For forgetting what is old, in every tenant.
        indexes: ClassVar = [models.Index(fields=["seen_at"], name="billing_rewardorigin_seen")]


class InvitationCode(TenantOwned):
    """What a user invites others with. No secret: whoever knows it can only reward its owner."""

    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    code = models.CharField(_("code"), max_length=16)
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        verbose_name = _("invitation code")
        verbose_name_plural = _("invitation codes")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="billing_invitationcode_user_fk"),
            models.UniqueConstraint(fields=["tenant", "user"], name="billing_invitationcode_user"),
            models.UniqueConstraint(fields=["tenant", "code"], name="billing_invitationcode_code"),
        ]


class Invitation(TenantOwned):
    """Who brought whom, and what each is promised for the invited user's first payment.

    States go one way: pending → vested → taken back; or refused from the start. Money is on `InvitationReward`.
    """

    class State(models.TextChoices):
        """How far it is."""

        PENDING = "pending", _("waiting for the first payment")
        VESTED = "vested", _("first payment made")
        REFUSED = "refused", _("not rewarded")
        TAKEN_BACK = "taken_back", _("first payment refunded")

    class Refusal(models.TextChoices):
        """Why it is not rewarded."""

        NONE = "", _("none")
        INVITER_DEVICE = "inviter_device", _("the inviter's own device")
        INVITER_ADDRESS = "inviter_address", _("the inviter's own network address")
        DEVICE_LIMIT = "device_limit", _("too many from this device")
        ADDRESS_LIMIT = "address_limit", _("too many from this network address")

    inviter = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("inviter"),
    )
    invitee = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("invited user"),
    )
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.PENDING)
    refusal = models.CharField(_("why not"), max_length=20, choices=Refusal.choices, blank=True, default=Refusal.NONE)
    inviter_amount = models.BigIntegerField(_("for the inviter, micro-yuan"))
    invitee_amount = models.BigIntegerField(_("for the invited user, micro-yuan"))
    device_digest = models.CharField(_("digest of the device"), max_length=64, blank=True, default="")
    address_digest = models.CharField(_("digest of the address"), max_length=64, blank=True, default="")
    payment_ref = models.CharField(_("first payment"), max_length=120, blank=True, default="")
    back_reason = models.CharField(_("why taken back"), max_length=200, blank=True, default="")
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)
    vested_at = models.DateTimeField(_("first payment at"), null=True, blank=True)
    taken_back_at = models.DateTimeField(_("taken back at"), null=True, blank=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("invitation")
        verbose_name_plural = _("invitations")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="inviter", name="billing_invitation_inviter_fk"),
            SameTenant(field="invitee", name="billing_invitation_invitee_fk"),
            models.UniqueConstraint(fields=["tenant", "invitee"], name="billing_invitation_invitee"),
            models.CheckConstraint(condition=~Q(inviter=F("invitee")), name="billing_invitation_other"),
            models.CheckConstraint(
                condition=Q(
                    inviter_amount__gte=0,
                    inviter_amount__lte=MAX_REWARD,
                    invitee_amount__gte=0,
                    invitee_amount__lte=MAX_REWARD,
                ),
                name="billing_invitation_amounts",
            ),
            models.CheckConstraint(
                condition=Q(device_digest__regex=_DIGEST, address_digest__regex=_DIGEST),
                name="billing_invitation_hashed",
            ),
            models.CheckConstraint(
                condition=Q(state="pending", refusal="", payment_ref="", vested_at=None, taken_back_at=None)
                | (Q(state="refused", payment_ref="", vested_at=None, taken_back_at=None) & ~Q(refusal=""))
                | (Q(state="vested", refusal="", vested_at__isnull=False, taken_back_at=None) & ~Q(payment_ref=""))
                | (
                    Q(state="taken_back", refusal="", vested_at__isnull=False, taken_back_at__isnull=False)
                    & ~Q(payment_ref="")
                ),
                name="billing_invitation_state",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "inviter"], name="billing_invitation_inviter"),
            models.Index(fields=["tenant", "device_digest", "created_at"], name="billing_invitation_device"),
            models.Index(fields=["tenant", "address_digest", "created_at"], name="billing_invitation_address"),
        ]


class InvitationReward(TenantOwned):
    """What one side of a vested invitation gets. One user, so that giving it and taking it back lock one user's rows.

    States: due → given → to be taken back → taken back; due → refused or cancelled. `taken` of it came from the gift
    balance when it was taken back, `owed` was spent by then.
    """

    class Side(models.TextChoices):
        """Whose reward."""

        INVITER = "inviter", _("inviter")
        INVITEE = "invitee", _("invited user")

    class State(models.TextChoices):
        """How far it is; the sweep works on the two that are due."""

        DUE = "due", _("to be given")
        GIVEN = "given", _("given")
        REFUSED = "refused", _("not given")
        CANCELLED = "cancelled", _("cancelled before it was given")
        BACK_DUE = "back_due", _("to be taken back")
        BACK = "back", _("taken back")

    class Refusal(models.TextChoices):
        """Why it was not given."""

        NONE = "", _("none")
        DAY_LIMIT = "day_limit", _("the inviter's limit of the day")
        TOTAL_LIMIT = "total_limit", _("the inviter's limit in all")
        BLOCKED = "blocked", _("the user is blocked")

    invitation = models.ForeignKey(
        Invitation,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="rewards",
        verbose_name=_("invitation"),
    )
    side = models.CharField(_("side"), max_length=7, choices=Side.choices)
    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    amount = models.BigIntegerField(_("amount, micro-yuan"))
    state = models.CharField(_("state"), max_length=9, choices=State.choices, default=State.DUE)
    refusal = models.CharField(_("why not"), max_length=20, choices=Refusal.choices, blank=True, default=Refusal.NONE)
    given_on = models.DateField(_("given on, in the tenant's time zone"), null=True, blank=True)
    taken = models.BigIntegerField(_("taken back, micro-yuan"), default=0)
    owed = models.BigIntegerField(_("spent before, micro-yuan"), default=0)
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        verbose_name = _("invitation reward")
        verbose_name_plural = _("invitation rewards")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="invitation", name="billing_invitationreward_invitation_fk"),
            SameTenant(field="user", name="billing_invitationreward_user_fk"),
            models.UniqueConstraint(fields=["tenant", "invitation", "side"], name="billing_invitationreward_once"),
            models.CheckConstraint(
                condition=Q(amount__gte=1, amount__lte=MAX_REWARD), name="billing_invitationreward_amount"
            ),
            models.CheckConstraint(
                condition=Q(state__in=["due", "cancelled"], refusal="", given_on=None, taken=0, owed=0)
                | (Q(state="refused", given_on=None, taken=0, owed=0) & ~Q(refusal=""))
                | Q(state__in=["given", "back_due"], refusal="", given_on__isnull=False, taken=0, owed=0)
                | Q(
                    state="back",
                    refusal="",
                    given_on__isnull=False,
                    taken__gte=0,
                    owed__gte=0,
                    amount=F("taken") + F("owed"),
                ),
                name="billing_invitationreward_state",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "user", "given_on"], name="billing_invitationreward_user"),
            # For the sweep over all tenants; as small as what is open.
            models.Index(fields=["id"], condition=Q(state__in=["due", "back_due"]), name="billing_reward_open"),
        ]


class RewardDebt(TenantOwned):
    """What a user had spent of rewards that were taken back: netted from their next rewards."""

    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    owed = models.BigIntegerField(_("owed, micro-yuan"))

    class Meta(TenantOwned.Meta):
        verbose_name = _("rewards owed")
        verbose_name_plural = _("rewards owed")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="billing_rewarddebt_user_fk"),
            models.UniqueConstraint(fields=["tenant", "user"], name="billing_rewarddebt_user"),
            models.CheckConstraint(condition=Q(owed__gte=0), name="billing_rewarddebt_owed"),
        ]


class AdTicket(TenantOwned):
    """Leave to be rewarded for one advertisement: one user's, once, not before it can have been watched."""

    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    nonce = models.CharField(_("nonce"), max_length=32, editable=False)
    amount = models.BigIntegerField(_("amount, micro-yuan"))
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)
    ready_at = models.DateTimeField(_("good from"))
    expires_at = models.DateTimeField(_("expires"))
    redeemed_at = models.DateTimeField(_("redeemed at"), null=True, blank=True)
    redeemed_on = models.DateField(_("redeemed on, in the tenant's time zone"), null=True, blank=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("advertisement ticket")
        verbose_name_plural = _("advertisement tickets")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="billing_adticket_user_fk"),
            models.UniqueConstraint(fields=["tenant", "nonce"], name="billing_adticket_nonce"),
            models.CheckConstraint(condition=Q(amount__gte=1, amount__lte=MAX_REWARD), name="billing_adticket_amount"),
            models.CheckConstraint(
                condition=Q(redeemed_at=None, redeemed_on=None)
                | Q(redeemed_at__isnull=False, redeemed_on__isnull=False),
                name="billing_adticket_state",
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["tenant", "user", "redeemed_on"], name="billing_adticket_user")]
