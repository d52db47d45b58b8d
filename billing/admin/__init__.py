"""Billing's rows on both admin sites."""

from billing.admin import books, recharge, redeem, rewards

__all__ = ["books", "recharge", "redeem", "rewards"]
