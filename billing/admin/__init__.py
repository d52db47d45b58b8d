"""Billing's rows on both admin sites."""

from billing.admin import books, redeem

__all__ = ["books", "redeem"]
