"""Billing's rows on both admin sites."""

from billing.admin import books, plans, recharge, redeem, resale, wallets

__all__ = ["books", "plans", "recharge", "redeem", "resale", "wallets"]
