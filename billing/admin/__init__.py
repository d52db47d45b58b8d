"""Billing's rows on both admin sites."""

from billing.admin import books, money, prices, recharge, redeem, rewards, statements

__all__ = ["books", "money", "prices", "recharge", "redeem", "rewards", "statements"]
