"""The article that is kept in stock."""


class Item:
    """One article, counted in single units and bought in packs."""

    def __init__(self, sku, on_hand, reorder_point, pack_size=1):
        if pack_size < 1:
            raise ValueError("pack_size must be at least 1")
        self.sku = sku
        self.on_hand = on_hand
        self.reorder_point = reorder_point
        self.pack_size = pack_size
        self.reserved = 0

    @property
    def available(self):
        """Units that can still be promised to a customer."""
        return self.on_hand - self.reserved

    def __repr__(self):
        return "Item({!r}, {} on hand, {} reserved)".format(self.sku, self.on_hand, self.reserved)
