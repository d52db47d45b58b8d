"""Billing's tables."""

from billing.models.account import Account, AccountKind, Entry, Transfer
from billing.models.hold import Hold, UsageSource
from billing.models.price import PriceVersion
from billing.models.quota import QuotaUse
from billing.models.recharge import Channel, MerchantAccount, Method, Order, Package, PaymentEvent
from billing.models.usage import DailyUsage, UsageRecord

__all__ = [
    "Account",
    "AccountKind",
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
    "Transfer",
    "UsageRecord",
    "UsageSource",
]
