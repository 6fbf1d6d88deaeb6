import pytest

from supportdesk import HIGH, LOW, NORMAL, Desk, Ticket, TicketQueue


def test_higher_priority_is_served_first():
    queue = TicketQueue()
    for number, priority in ((1, LOW), (2, HIGH), (3, NORMAL)):
        queue.add(Ticket(number, 10 + number, priority))
    assert [queue.pop().number for _ in range(3)] == [2, 3, 1]


def test_equal_priority_is_served_in_opening_order():
    queue = TicketQueue()
    for number, opened in ((1, 30), (2, 10), (3, 20), (4, 5)):
        queue.add(Ticket(number, opened))
    assert [queue.pop().number for _ in range(4)] == [4, 2, 3, 1]


def test_opening_order_holds_within_every_priority():
    desk = Desk()
    for now, priority in enumerate((NORMAL, HIGH, LOW, HIGH, NORMAL, LOW, HIGH)):
        desk.open(now, priority)
    assert desk.overview() == [2, 4, 7, 1, 5, 3, 6]


def test_same_minute_is_served_in_the_order_of_arrival():
    desk = Desk()
    for _ in range(5):
        desk.open(100)
    assert desk.overview() == [1, 2, 3, 4, 5]


def test_overview_does_not_take_tickets_out():
    desk = Desk()
    desk.open(1, HIGH)
    desk.open(2, LOW)
    assert desk.overview() == [1, 2]
    assert len(desk.queue) == 2


def test_agents_share_the_queue():
    desk = Desk()
    for now in range(4):
        desk.open(now)
    for agent in ("ann", "bob", "ann", "bob"):
        desk.next_for(agent)
    assert desk.assigned == {"ann": [1, 3], "bob": [2, 4]}


def test_an_empty_queue_gives_none():
    assert Desk().next_for("ann") is None
    assert TicketQueue().pop() is None


def test_unknown_priority_is_refused():
    with pytest.raises(ValueError):
        Ticket(1, 0, priority=9)
