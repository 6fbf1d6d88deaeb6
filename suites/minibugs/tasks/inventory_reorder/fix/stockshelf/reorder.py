"""Which items to buy again, and how many of them."""


def needs_reorder(item):
    """Tell whether the available stock is down to the reorder point."""
    return item.available <= item.reorder_point


def suggested_quantity(item, target):
    """Return the units to buy, in whole packs, to have at least `target` units available."""
    missing = max(0, target - item.available)
    packs = -(-missing // item.pack_size)
    return packs * item.pack_size


def purchase_list(shelf, cover=2):
    """Return {sku: units} for all items that are due.

    An item is filled up to `cover` times its reorder point.
    """
    order = {}
    for item in shelf:
        if needs_reorder(item):
            order[item.sku] = suggested_quantity(item, cover * item.reorder_point)
    return order
