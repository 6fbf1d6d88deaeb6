"""Accounts of a small savings bank. All money is in cents."""

from tillbank.account import Account
from tillbank.bank import Bank
from tillbank.errors import AccountClosed, BankError, LimitExceeded, NotEnoughMoney, UnknownAccount

__all__ = [
    "Account",
    "AccountClosed",
    "Bank",
    "BankError",
    "LimitExceeded",
    "NotEnoughMoney",
    "UnknownAccount",
]
