import pytest

from vectorscene import Box, Disc, Group, LabelledBox


def test_plain_shapes_move():
    box, disc = Box(1, 2, 10, 20), Disc(5, 5, 3)
    box.move(4, -1)
    disc.move(-2, 2)
    assert box.bounds() == (5, 1, 15, 21)
    assert disc.bounds() == (0, 4, 6, 10)


def test_disc_contains_less_than_its_bounds():
    disc = Disc(0, 0, 5)
    assert disc.contains(3, 4)
    assert not disc.contains(4, 4)


def test_labelled_box_starts_as_a_box():
    box = LabelledBox(10, 10, 8, 6, "in")
    assert box.bounds() == (10, 10, 18, 16)
    assert box.anchor == (12, 13)


def test_labelled_box_moves_with_its_label():
    for dx, dy in ((5, 7), (-3, 0), (0, 0), (0, 11)):
        box = LabelledBox(10, 10, 8, 6, "in")
        box.move(dx, dy)
        assert box.bounds() == (10 + dx, 10 + dy, 18 + dx, 16 + dy)
        assert box.anchor == (12 + dx, 13 + dy)


def test_labelled_box_adds_up_moves():
    box = LabelledBox(0, 0, 4, 4, "a")
    box.move(1, 2)
    box.move(10, 20)
    assert (box.x, box.y) == (11, 22)
    assert box.anchor == (13, 24)


def test_moved_labelled_box_is_hit_at_its_new_place():
    box = LabelledBox(0, 0, 4, 4, "a")
    box.move(100, 50)
    assert box.contains(102, 53)
    assert not box.contains(2, 2)


def test_moving_the_label_leaves_the_box():
    box = LabelledBox(0, 0, 10, 10, "a")
    box.move_label(3, 1)
    assert box.bounds() == (0, 0, 10, 10)
    assert box.anchor == (5, 6)


def test_group_of_plain_shapes_moves_as_a_whole():
    group = Group(Box(0, 0, 2, 2), Disc(10, 10, 1))
    group.move(5, 5)
    assert group.bounds() == (5, 5, 16, 16)


def test_group_with_labelled_boxes_moves_as_a_whole():
    inner = Group(LabelledBox(0, 0, 2, 2, "a"), Box(4, 4, 2, 2))
    group = Group(inner, LabelledBox(-6, 0, 2, 2, "b"))
    assert group.bounds() == (-6, 0, 6, 6)
    group.move(10, -10)
    assert group.bounds() == (4, -10, 16, -4)
    assert group.contains(11, -9) and not group.contains(1, 1)


def test_empty_group_has_no_bounds():
    with pytest.raises(ValueError):
        Group().bounds()
