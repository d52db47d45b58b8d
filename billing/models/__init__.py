"""Billing's tables."""

from billing.models.account import Account, AccountKind, Entry, Transfer
from billing.models.adjustment import UsageAdjustment
from billing.models.audit_run import AuditRun
from billing.models.bill import Bill, BillLine
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
from billing.models.recharge import METHODS, Channel, MerchantAccount, Method, Order, Package, PaymentEvent
from billing.models.redeem import RedeemBatch, RedeemCode
from billing.models.refund import Refund
from billing.models.resale import Commission, CommissionBack, CommissionTerms, ConsumptionBack, PayoutBatch, Withdrawal
from billing.models.rewards import (
    AdTicket,
    Invitation,
    InvitationCode,
    InvitationReward,
    RewardDebt,
    RewardOrigin,
    RewardRules,
    SignIn,
)
from billing.models.statement import Statement
from billing.models.usage import DailyUsage, DailyUsers, UsageRecord
from billing.models.wallet import WalletNotice, WalletTopUp

__all__ = [
    "METHODS",
    "Account",
    "AccountKind",
    "AdTicket",
    "AuditRun",
    "Bill",
    "BillLine",
    "Cap",
    "CapUse",
    "Channel",
    "Commission",
    "CommissionBack",
    "CommissionTerms",
    "ConsumptionBack",
    "DailyUsage",
    "DailyUsers",
    "Entry",
    "FreeQuota",
    "Hold",
    "Invitation",
    "InvitationCode",
    "InvitationReward",
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
    "RewardDebt",
    "RewardOrigin",
    "RewardRules",
    "SignIn",
    "Statement",
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
