"""Money in several currencies."""

from ratebook.rates import RateBook, UnknownCurrency
from ratebook.wallet import Wallet

__all__ = ["RateBook", "UnknownCurrency", "Wallet"]
