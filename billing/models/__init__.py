"""Billing's tables."""

from billing.models.account import Account, AccountKind, Entry, Transfer
from billing.models.audit_run import AuditRun
from billing.models.hold import Hold, UsageSource
from billing.models.price import PriceVersion
from billing.models.quota import QuotaUse
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
    "Channel",
    "Commission",
    "CommissionBack",
    "CommissionTerms",
    "ConsumptionBack",
    "DailyUsage",
    "Entry",
    "Hold",
    "MerchantAccount",
    "Method",
    "Order",
    "Package",
    "PaymentEvent",
    "PayoutBatch",
    "PriceVersion",
    "QuotaUse",
    "RedeemBatch",
    "RedeemCode",
    "Refund",
    "Transfer",
    "UsageRecord",
    "UsageSource",
    "WalletNotice",
    "WalletTopUp",
    "Withdrawal",
]
