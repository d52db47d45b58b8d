"""Billing's rows on both admin sites."""

from billing.admin import books, recharge, redeem, resale, wallets

__all__ = ["books", "recharge", "redeem", "resale", "wallets"]
