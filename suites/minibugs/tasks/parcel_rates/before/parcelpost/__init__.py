"""Postage for parcels, by weight band and zone."""

from parcelpost.quote import Parcel, quote
from parcelpost.tariff import STANDARD, Tariff, TooHeavy

__all__ = ["STANDARD", "Parcel", "Tariff", "TooHeavy", "quote"]
