"""Billing's rows on both admin sites."""

from billing.admin import books, recharge, redeem, statements

__all__ = ["books", "recharge", "redeem", "statements"]
