"""Billing's rows on both admin sites."""

from billing.admin import books, plans, recharge, redeem

__all__ = ["books", "plans", "recharge", "redeem"]
