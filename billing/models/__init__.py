"""Billing's tables."""

from billing.models.account import Account, AccountKind, Entry, Transfer
from billing.models.adjustment import UsageAdjustment
from billing.models.audit_run import AuditRun
from billing.models.cap import Cap, CapUse
from billing.models.hold import Hold, UsageSource
from billing.models.plan import (
    Period,
    Plan,
    PlanAllowance,
    PlanUse,
    Subscription,
    SubscriptionAllowance,
)
from billing.models.price import PriceVersion
from billing.models.quota import FreeQuota, QuotaUse
from billing.models.recharge import Channel, MerchantAccount, Method, Order, Package, PaymentEvent
from billing.models.redeem import RedeemBatch, RedeemCode
from billing.models.refund import Refund
from billing.models.resale import Commission, CommissionBack, CommissionTerms, ConsumptionBack, PayoutBatch, Withdrawal
from billing.models.usage import DailyUsage, UsageRecord
from billing.models.wallet import WalletNotice, WalletTopUp

__all__ = [
    "Account",
    "AccountKind",
    "AuditRun",
    "Cap",
    "CapUse",
    "Channel",
    "Commission",
    "CommissionBack",
    "CommissionTerms",
    "ConsumptionBack",
    "DailyUsage",
    "Entry",
    "FreeQuota",
    "Hold",
    "MerchantAccount",
    "Method",
    "Order",
    "Package",
    "PaymentEvent",
    "PayoutBatch",
    "Period",
    "Plan",
    "PlanAllowance",
    "PlanUse",
    "PriceVersion",
    "QuotaUse",
    "RedeemBatch",
    "RedeemCode",
    "Refund",
    "Subscription",
    "SubscriptionAllowance",
    "Transfer",
    "UsageAdjustment",
    "UsageRecord",
    "UsageSource",
    "WalletNotice",
    "WalletTopUp",
    "Withdrawal",
]
