import pytest

from stockshelf import Item, Shelf, needs_reorder, purchase_list, suggested_quantity
from stockshelf.shelf import OutOfStock


def test_item_above_the_reorder_point_is_not_due():
    for on_hand, point in ((6, 5), (100, 10), (1, 0)):
        assert not needs_reorder(Item("bolt", on_hand, point))


def test_item_below_the_reorder_point_is_due():
    for on_hand, point in ((4, 5), (0, 10), (9, 10)):
        assert needs_reorder(Item("bolt", on_hand, point))


def test_item_at_the_reorder_point_is_due():
    for level in (0, 1, 5, 12, 250):
        assert needs_reorder(Item("bolt", level, level))


def test_reservation_down_to_the_point_makes_an_item_due():
    shelf = Shelf([Item("nut", 20, 8)])
    shelf.reserve("nut", 11)
    assert not needs_reorder(shelf["nut"])
    shelf.reserve("nut", 1)
    assert needs_reorder(shelf["nut"])


def test_purchase_list_holds_exactly_the_due_items():
    shelf = Shelf([Item("a", 10, 10), Item("b", 11, 10), Item("c", 3, 10, 4), Item("d", 4, 4, 3)])
    assert purchase_list(shelf) == {"a": 10, "c": 20, "d": 6}


def test_received_goods_take_an_item_off_the_list():
    shelf = Shelf([Item("nut", 1, 8)])
    assert purchase_list(shelf) == {"nut": 15}
    shelf.receive("nut", 15)
    assert purchase_list(shelf) == {}


def test_suggested_quantity_is_whole_packs():
    item = Item("bolt", 3, 5, pack_size=12)
    assert suggested_quantity(item, 3) == 0
    assert suggested_quantity(item, 4) == 12
    assert suggested_quantity(item, 15) == 12
    assert suggested_quantity(item, 16) == 24


def test_reserving_too_much_is_refused():
    shelf = Shelf([Item("nut", 2, 1)])
    with pytest.raises(OutOfStock):
        shelf.reserve("nut", 3)
    assert shelf["nut"].available == 2
