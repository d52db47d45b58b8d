"""Billing's rows on both admin sites."""

from billing.admin import books, money, plans, prices, recharge, redeem, resale, rewards, statements, wallets

__all__ = ["books", "money", "plans", "prices", "recharge", "redeem", "resale", "rewards", "statements", "wallets"]
