"""Billing's rows on both admin sites."""

from billing.admin import books, prices, recharge, redeem, statements

__all__ = ["books", "prices", "recharge", "redeem", "statements"]
