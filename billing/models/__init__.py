"""Billing's tables."""

from billing.models.account import Account, AccountKind, Entry, Transfer
from billing.models.adjustment import UsageAdjustment
from billing.models.audit_run import AuditRun
from billing.models.hold import Hold, UsageSource
from billing.models.price import PriceVersion
from billing.models.quota import QuotaUse
from billing.models.recharge import Channel, MerchantAccount, Method, Order, Package, PaymentEvent
from billing.models.redeem import RedeemBatch, RedeemCode
from billing.models.refund import Refund
from billing.models.usage import DailyUsage, UsageRecord

__all__ = [
    "Account",
    "AccountKind",
    "AuditRun",
    "Channel",
    "DailyUsage",
    "Entry",
    "Hold",
    "MerchantAccount",
    "Method",
    "Order",
    "Package",
    "PaymentEvent",
    "PriceVersion",
    "QuotaUse",
    "RedeemBatch",
    "RedeemCode",
    "Refund",
    "Transfer",
    "UsageAdjustment",
    "UsageRecord",
    "UsageSource",
]
