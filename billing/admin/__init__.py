"""Billing's rows on both admin sites."""

from billing.admin import books, prices, recharge, redeem, rewards, statements

__all__ = ["books", "prices", "recharge", "redeem", "rewards", "statements"]
