"""Billing's rows on both admin sites."""

from billing.admin import books, money, recharge, redeem

__all__ = ["books", "money", "recharge", "redeem"]
