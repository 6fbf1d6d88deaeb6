"""A shelf is the set of items of one shop, by stock keeping unit."""


class OutOfStock(Exception):
    """More units were asked for than are available."""


class Shelf:
    """Holds items and changes their counts."""

    def __init__(self, items=()):
        self._items = {item.sku: item for item in items}

    def __iter__(self):
        return iter(sorted(self._items.values(), key=lambda item: item.sku))

    def __getitem__(self, sku):
        return self._items[sku]

    def reserve(self, sku, units):
        """Promise `units` to a customer; they stay on the shelf until shipped."""
        item = self._items[sku]
        if units > item.available:
            raise OutOfStock("{}: {} wanted, {} available".format(sku, units, item.available))
        item.reserved += units

    def ship(self, sku, units):
        """Send out units that were reserved before."""
        item = self._items[sku]
        if units > item.reserved:
            raise OutOfStock("{}: only {} reserved".format(sku, item.reserved))
        item.reserved -= units
        item.on_hand -= units

    def receive(self, sku, units):
        """Put delivered units on the shelf."""
        self._items[sku].on_hand += units
