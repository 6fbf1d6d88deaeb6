import pytest

from roombook import Clash, Room, Span, clock


def make_room(*bookings):
    room = Room(clock("8:00"), clock("18:00"))
    for start, end, who in bookings:
        room.book(clock(start), clock(end), who)
    return room


def free_times(room, at_least=1):
    return [(span.start // 60, span.end // 60) for span in room.free(at_least)]


def test_spans_with_common_minutes_overlap():
    for other in (Span(5, 15), Span(12, 13), Span(19, 30), Span(0, 40), Span(10, 20)):
        assert Span(10, 20).overlaps(other)
        assert other.overlaps(Span(10, 20))


def test_spans_that_touch_or_are_apart_do_not_overlap():
    for other in (Span(0, 10), Span(20, 25), Span(0, 9), Span(21, 22)):
        assert not Span(10, 20).overlaps(other)
        assert not other.overlaps(Span(10, 20))


def test_back_to_back_meetings_are_accepted():
    room = make_room(("9:00", "10:00", "ann"), ("10:00", "11:00", "bob"))
    room.book(clock("8:30"), clock("9:00"), "cyd")
    assert free_times(make_room(("8:00", "12:00", "ann"), ("12:00", "18:00", "bob"))) == []


def test_clashes_are_refused():
    room = make_room(("9:00", "10:00", "ann"))
    for start, end in (("9:59", "10:30"), ("8:00", "9:01"), ("9:15", "9:45"), ("8:00", "18:00")):
        with pytest.raises(Clash):
            room.book(clock(start), clock(end), "bob")
    assert room.cancel("bob") == 0


def test_the_room_is_closed_at_night():
    for start, end in (("7:00", "9:00"), ("17:00", "19:00")):
        with pytest.raises(Clash):
            make_room().book(clock(start), clock(end), "ann")


def test_free_times_between_bookings():
    room = make_room(("9:00", "10:00", "ann"), ("12:00", "15:00", "bob"))
    assert free_times(room) == [(8, 9), (10, 12), (15, 18)]
    assert free_times(room, at_least=120) == [(10, 12), (15, 18)]
    assert free_times(room, at_least=180) == [(15, 18)]
    assert free_times(room, at_least=181) == []


def test_a_single_minute_is_free_time():
    room = make_room(("8:00", "12:00", "ann"), ("12:01", "18:00", "bob"))
    assert room.free() == [Span(clock("12:00"), clock("12:01"))]
    assert room.free(at_least=2) == []


def test_free_times_do_not_depend_on_the_order_of_booking():
    bookings = [("9:00", "10:00", "a"), ("12:00", "13:00", "b"), ("16:00", "17:00", "c")]
    for first, second, third in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        room = make_room(bookings[first], bookings[second], bookings[third])
        assert free_times(room) == [(8, 9), (10, 12), (13, 16), (17, 18)]
        assert free_times(room, at_least=121) == [(13, 16)]


def test_free_times_of_a_full_day_booked_backwards():
    room = make_room(("13:00", "18:00", "ann"), ("10:00", "13:00", "bob"), ("8:00", "10:00", "cyd"))
    assert room.free() == []


def test_a_cancelled_booking_is_free_again():
    room = make_room(("16:00", "17:00", "ann"), ("9:00", "10:00", "bob"))
    assert room.cancel("ann") == 1
    assert free_times(room) == [(8, 9), (10, 18)]


def test_spans_end_after_their_start():
    with pytest.raises(ValueError):
        Span(10, 10)
