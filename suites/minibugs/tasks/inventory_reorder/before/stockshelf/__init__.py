"""Stock keeping for a small shop: items, a shelf that holds them, and reorder suggestions."""

from stockshelf.items import Item
from stockshelf.reorder import needs_reorder, purchase_list, suggested_quantity
from stockshelf.shelf import Shelf

__all__ = ["Item", "Shelf", "needs_reorder", "purchase_list", "suggested_quantity"]
