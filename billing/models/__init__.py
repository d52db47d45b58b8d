"""Billing's tables."""

from billing.models.account import Account, AccountKind, Entry, Transfer
from billing.models.audit_run import AuditRun
from billing.models.bill import Bill, BillLine
from billing.models.hold import Hold, UsageSource
from billing.models.price import PriceVersion
from billing.models.quota import QuotaUse
from billing.models.recharge import METHODS, Channel, MerchantAccount, Method, Order, Package, PaymentEvent
from billing.models.redeem import RedeemBatch, RedeemCode
from billing.models.refund import Refund
from billing.models.statement import Statement
from billing.models.usage import DailyUsage, UsageRecord

__all__ = [
    "METHODS",
    "Account",
    "AccountKind",
    "AuditRun",
    "Bill",
    "BillLine",
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
    "Statement",
    "Transfer",
    "UsageRecord",
    "UsageSource",
]
