"""The ledger's tables: accounts, and the append-only transfers whose entries move their balances.

Amounts are whole micro-yuan (¥1 = 1,000,000). Only `billing.ledger` writes here; triggers (migrations 0002 and 0006)
refuse every change to a transfer or an entry once it is written, and refuse at commit a transfer that does not sum to
zero. A transfer without a tenant is the platform's: it moves what resellers have.
"""

from typing import ClassVar, Final

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from tenants.scope import SameTenant, TenantOrPlatformOwned


class AccountKind(models.TextChoices):
    """What a balance stands for."""

    USER_CASH = "user_cash", _("user's balance")
    USER_GIFT = "user_gift", _("user's gift balance")
    TENANT_WHOLESALE = "tenant_wholesale", _("tenant's wholesale wallet")
    TENANT_REVENUE = "tenant_revenue", _("tenant's revenue")
    # What one tenant's answers earned a reseller and the daily fold has not collected yet: a row for each tenant, for
    # the same reason as the platform's revenue.
    RESELLER_ACCRUED = "reseller_accrued", _("reseller's commission of the day")
    RESELLER_PENDING = "reseller_pending", _("reseller's frozen commission")
    RESELLER_AVAILABLE = "reseller_available", _("reseller's commission")
    # Commission that was paid out and then taken back: below zero, and netted with what is earned later.
    RESELLER_RECEIVABLE = "reseller_receivable", _("commission owed by the reseller")
    RESELLER_WALLET = "reseller_wallet", _("reseller's wholesale wallet")
    WITHDRAWAL_PAYABLE = "withdrawal_payable", _("withdrawals under way")
    # One row for each tenant, not one for the platform: every answer adds to it, and a single row would make the
    # answers of all tenants wait for each other.
    PLATFORM_REVENUE = "platform_revenue", _("platform's revenue")
    PSP_CLEARING = "psp_clearing", _("clearing with a payment channel")
    REFUND_PAYABLE = "refund_payable", _("refunds owed")
    SHORTFALL = "shortfall", _("charged beyond the balance")


USER_KINDS: Final = (AccountKind.USER_GIFT, AccountKind.USER_CASH)
TENANT_KINDS: Final = (AccountKind.TENANT_WHOLESALE, AccountKind.TENANT_REVENUE)
RESELLER_KINDS: Final = (
    AccountKind.RESELLER_PENDING,
    AccountKind.RESELLER_AVAILABLE,
    AccountKind.RESELLER_RECEIVABLE,
    AccountKind.RESELLER_WALLET,
    AccountKind.WITHDRAWAL_PAYABLE,
)
CHANNEL_KINDS: Final = (AccountKind.PSP_CLEARING, AccountKind.REFUND_PAYABLE, AccountKind.SHORTFALL)
# These mirror money that came or went outside the ledger, or is owed to it, so they alone may stand below zero.
BELOW_ZERO_KINDS: Final = (AccountKind.PSP_CLEARING, AccountKind.SHORTFALL, AccountKind.RESELLER_RECEIVABLE)

_OWNER_SHAPE: Final = (
    Q(kind__in=USER_KINDS, tenant__isnull=False, user__isnull=False, reseller__isnull=True, channel="")
    | Q(kind__in=TENANT_KINDS, tenant__isnull=False, user__isnull=True, reseller__isnull=True, channel="")
    | Q(kind__in=RESELLER_KINDS, tenant__isnull=True, user__isnull=True, reseller__isnull=False, channel="")
    | Q(kind=AccountKind.RESELLER_ACCRUED, tenant__isnull=False, user__isnull=True, reseller__isnull=False, channel="")
    | Q(kind=AccountKind.PLATFORM_REVENUE, user__isnull=True, reseller__isnull=True, channel="")
    | Q(kind__in=CHANNEL_KINDS, user__isnull=True, reseller__isnull=True)
)


class Account(TenantOrPlatformOwned):
    """A balance. `posted` is the sum of its entries; `pending` is what open holds have frozen of it."""

    kind = models.CharField(_("kind"), max_length=20, choices=AccountKind.choices)
    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("user"),
    )
    reseller = models.ForeignKey(
        "tenants.Reseller",
        on_delete=models.PROTECT,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("reseller"),
    )
    channel = models.CharField(_("channel"), max_length=100, blank=True, default="")
    posted = models.BigIntegerField(_("posted, micro-yuan"), default=0)
    pending = models.BigIntegerField(_("frozen, micro-yuan"), default=0)

    class Meta(TenantOrPlatformOwned.Meta):
        verbose_name = _("account")
        verbose_name_plural = _("accounts")
        constraints: ClassVar = [
            *TenantOrPlatformOwned.Meta.constraints,
            SameTenant(field="user", name="billing_account_user_fk"),
            models.UniqueConstraint(
                fields=["tenant", "kind", "user", "reseller", "channel"],
                nulls_distinct=False,
                name="billing_account_one_each",
            ),
            models.CheckConstraint(condition=_OWNER_SHAPE, name="billing_account_owner"),
            models.CheckConstraint(condition=Q(pending__gte=0), name="billing_account_pending"),
            models.CheckConstraint(
                condition=Q(kind__in=BELOW_ZERO_KINDS) | Q(posted__gte=F("pending")),
                name="billing_account_available",
            ),
        ]

    @property
    def available(self) -> int:
        """What may be spent or frozen now, micro-yuan."""
        return self.posted - self.pending


class Transfer(TenantOrPlatformOwned):
    """One movement of money, done once: `ref` is unique for its tenant (or the platform) and kind."""

    class Kind(models.TextChoices):
        """Why money moved."""

        CREDIT = "credit", _("manual credit")
        GIFT = "gift", _("gift")
        TOPUP = "topup", _("recharge")
        WALLET_TOPUP = "wallet_topup", _("wholesale wallet top-up")
        ANSWER = "answer", _("answer")
        ADJUSTMENT = "adjustment", _("answer adjusted")
        REDEEM = "redeem", _("redeem code")
        SIGN_IN = "sign_in", _("sign-in bonus")
        INVITATION = "invitation", _("invitation reward")
        AD = "ad", _("reward for an advertisement")
        REWARD_BACK = "reward_back", _("reward taken back")
        PLAN = "plan", _("plan sold")
        REFUND = "refund", _("refund")
        REFUND_PAID = "refund_paid", _("refund paid")
        REFUND_FAILED = "refund_failed", _("refund returned")
        COMMISSION = "commission", _("commission of a day")
        COMMISSION_RELEASE = "commission_release", _("commission set free")
        COMMISSION_BACK = "commission_back", _("commission taken back")
        WALLET_ALLOT = "wallet_allot", _("wallet filled by the reseller")
        WITHDRAWAL = "withdrawal", _("withdrawal")
        WITHDRAWAL_PAID = "withdrawal_paid", _("withdrawal paid")
        WITHDRAWAL_BACK = "withdrawal_back", _("withdrawal returned")

    kind = models.CharField(_("kind"), max_length=20, choices=Kind.choices)
    ref = models.CharField(_("reference"), max_length=120)
    actor = models.CharField(_("by"), max_length=120)
    reason = models.CharField(_("reason"), max_length=200, blank=True, default="")
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)

    class Meta(TenantOrPlatformOwned.Meta):
        verbose_name = _("transfer")
        verbose_name_plural = _("transfers")
        constraints: ClassVar = [
            *TenantOrPlatformOwned.Meta.constraints,
            models.UniqueConstraint(
                fields=["tenant", "kind", "ref"], nulls_distinct=False, name="billing_transfer_once"
            ),
        ]
        # Statements add up a month of one tenant's transfers, or of the platform's own.
        indexes: ClassVar = [models.Index(fields=["tenant", "created_at"], name="billing_transfer_month")]


class Entry(TenantOrPlatformOwned):
    """What a transfer did to one account: more (+) or less (-) of micro-yuan."""

    transfer = models.ForeignKey(
        Transfer,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="entries",
        verbose_name=_("transfer"),
    )
    account = models.ForeignKey(
        Account, on_delete=models.PROTECT, db_index=False, related_name="entries", verbose_name=_("account")
    )
    amount = models.BigIntegerField(_("amount, micro-yuan"))

    class Meta(TenantOrPlatformOwned.Meta):
        verbose_name = _("entry")
        verbose_name_plural = _("entries")
        constraints: ClassVar = [
            *TenantOrPlatformOwned.Meta.constraints,
            # Says nothing of the platform's own entries; there the trigger of migration 0006 looks.
            SameTenant(field="transfer", name="billing_entry_transfer_fk"),
            models.UniqueConstraint(
                fields=["tenant", "transfer", "account"], nulls_distinct=False, name="billing_entry_once"
            ),
            models.CheckConstraint(condition=~Q(amount=0), name="billing_entry_amount"),
        ]
        indexes: ClassVar = [models.Index(fields=["tenant", "account", "id"], name="billing_entry_account")]
